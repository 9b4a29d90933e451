from pathlib import Path

import torch

from bench.scheduled_source import Schedule, ScheduledSource
from bench.schedules import with_head
from bench.windows import Watcher, _fit
from thaw.data.dataset import Dataset
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.training.context import FitContext
from thaw.trial import TrialContext, begin


def test_averages_of_the_weights_are_not_the_weights(images: Path, quick: Recipe, tmp_path: Path) -> None:
    trial = begin(Dataset.open(images), quick, TrialContext(tmp_path, NullReporter()))
    run, _ = with_head(trial, tmp_path / "checkpoints")
    sources = trial.inputs.sources_of(1)
    assert sources.val is not None
    source = ScheduledSource.of(sources.train, Schedule("whole 2", 0, 2), seed=0)
    watcher = Watcher(trial, run.settings, source, sources.val)
    _fit(FitContext(trial.classifier, trial.recipe.phases, run.settings, run.callbacks), watcher, source, sources.val)

    def trained() -> torch.Tensor:
        return torch.cat([each.detach().flatten().clone() for each in trial.classifier.parameters()])

    weights = trained()
    with watcher.averages.in_place():
        averages = trained()
    assert not torch.equal(averages, weights) and torch.allclose(averages, weights, atol=0.1)
    assert torch.equal(trained(), weights)
