from pathlib import Path

import torch

from bench.deeper import phase_by_phase
from thaw.data.dataset import Dataset
from thaw.progress import NullReporter
from thaw.recipe import HeadSettings, Recipe
from thaw.trial import TrialContext, begin, fit_settings


def test_a_deeper_phase_goes_on_with_the_standardisation_of_the_head(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = quick.model_copy(update={"head": HeadSettings(features="all")})
    trial = begin(Dataset.open(images), recipe, TrialContext(tmp_path, NullReporter()))
    head = trial.classifier.head
    found = [
        (head.mean.clone(), head.scale.clone(), torch.cat([each.detach().flatten() for each in head.parameters()]))
        for _ in phase_by_phase(trial, fit_settings(trial, tmp_path / "checkpoints", ""))
    ]
    (mean, scale, weights), (mean_after, scale_after, weights_after) = found
    assert head.is_standardised and not torch.equal(weights, weights_after)
    assert torch.equal(mean, mean_after) and torch.equal(scale, scale_after)
