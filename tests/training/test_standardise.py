from pathlib import Path

import pytest
import torch

from tests.training.test_fit import PHASES, make_classifier, sources_for, train
from thaw.recipe import Phase
from thaw.training.standardise import fit_standardisation


@pytest.mark.parametrize("phase", PHASES, ids=["head", "below"])
def test_a_head_on_all_stages_gets_features_of_mean_0_and_equal_variance_in_every_stage(
    phase: Phase,
) -> None:
    classifier = make_classifier(features="all")
    backbone = classifier.backbone
    position, source = backbone.cut(phase.cut).position, sources_for(classifier, phase).train
    fit_standardisation(classifier, position, source)
    inputs, _ = source.batch(torch.arange(len(source)).numpy(), epoch=0)
    with torch.no_grad():
        features = classifier.head.standardised(backbone.advance(inputs, position, backbone.head_position).for_head())
    assert features.mean(0).abs().max() < 1e-3
    variances = [float(part.var(0, correction=0).sum()) for part in features.split(backbone.feature_groups, dim=1)]
    assert max(variances) < 1.2 * min(variances)


def test_it_is_fitted_before_training_and_then_stays(tmp_path: Path) -> None:
    classifier, phase = make_classifier(features="all"), PHASES[1]
    untrained = {name: value.clone() for name, value in classifier.state_dict().items()}
    fit_standardisation(classifier, classifier.backbone.cut(phase.cut).position, sources_for(classifier, phase).train)
    weights, _ = train(tmp_path, (phase,), features="all")
    for name in ("head.mean", "head.scale"):
        assert torch.equal(weights[name], classifier.state_dict()[name])
        assert not torch.equal(weights[name], untrained[name])
    assert not torch.equal(weights["head.layers.1.weight"], untrained["head.layers.1.weight"])


def test_a_head_on_the_last_stage_takes_plain_features() -> None:
    classifier = make_classifier()
    fit_standardisation(classifier, classifier.backbone.head_position, sources_for(classifier, PHASES[0]).train)
    assert not classifier.head.is_standardised and set(classifier.head.state_dict()) == {
        "layers.1.weight",
        "layers.1.bias",
    }
