from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from thaw.backbones.timm_backbone import build
from thaw.data.prepare import LabelledRows
from thaw.features.cache import FeatureCache
from thaw.progress import NullReporter
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase, PreprocessingSettings, Recipe
from thaw.training.phases import PhaseInputs, input_plans

HEAD = HEAD_PHASE.model_copy(update={"inputs": "cached"})


def thawing(name: str, cut: str, **values: object) -> Phase:
    return FINE_TUNE_PHASE.model_copy(update={"name": name, "cut": cut, "inputs": "cached", **values})


def make_inputs(*phases: Phase) -> PhaseInputs:
    nothing: Any = None
    return PhaseInputs(
        plans=input_plans(Recipe(views=2, phases=phases)),
        pixels=nothing,
        backbone=build("mobilenetv3_small_050", "random"),
        engine="pytorch-fp32",
        train=nothing,
        val=nothing,
        test=nothing,
        cache=nothing,
        seed=0,
        device=torch.device("cpu"),
        bar=NullReporter().bar,
    )


@pytest.mark.parametrize(
    ("phases", "trained", "extraction_passes"),
    [
        ((HEAD, thawing("top", "stages:1")), (0, 1), 1),
        ((HEAD, thawing("top", "stages:1", optional=True)), (0, 1), 1),
        ((HEAD, thawing("top", "stages:1", optional=True), thawing("deeper", "stages:2", optional=True)), (0, 1, 2), 2),
        ((HEAD, thawing("top", "stages:1", optional=True), thawing("deeper", "stages:2", optional=True)), (0, 1), 1),
        ((HEAD, thawing("top", "stages:1", augment="strong")), (0, 1), 2),
        ((HEAD, thawing("top", "stages:1", inputs="fresh")), (0, 1), 1),
        ((thawing("whole", "pixels", inputs="fresh"),), (0,), 0),
    ],
)
def test_one_pass_serves_the_phases_that_are_certain_to_be_trained(
    phases: tuple[Phase, ...], trained: tuple[int, ...], extraction_passes: int
) -> None:
    assert make_inputs(*phases).extraction_passes(trained) == extraction_passes


def inputs_of_images(cache: Path, *phases: Phase) -> PhaseInputs:
    """Of six images of noise: three are trained on, two validated on, and one is tested on."""
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32), "avg", 0)
    images = np.random.default_rng(0).integers(0, 256, size=(6, 40, 40, 3), dtype=np.uint8)
    return replace(
        make_inputs(*phases),
        pixels=SimpleNamespace(key="pixels", spec=backbone.facts.pixels, read=images.__getitem__),
        backbone=backbone,
        train=LabelledRows(np.array([4, 0, 2]), np.arange(3)),
        val=LabelledRows(np.array([3, 1]), np.arange(2)),
        test=LabelledRows(np.array([5]), np.array([2])),
        cache=FeatureCache(cache, "float32"),
    )


@pytest.mark.parametrize("inputs", ["cached", "fresh"])
def test_a_phase_trains_on_the_training_images_and_validates_on_those_of_validation(
    inputs: str, tmp_path: Path
) -> None:
    of_images = inputs_of_images(tmp_path, thawing("top", "stages:1", inputs=inputs))
    sources = of_images.sources_of(0)
    assert sources.val
    for source, labelled in ((sources.train, of_images.train), (sources.val, of_images.val)):
        assert source.targets.tolist() == labelled.targets.tolist()
        (values, _), targets = source.batch(np.arange(len(source)), epoch=0)
        assert len(values) == len(labelled.rows) and targets.tolist() == labelled.targets.tolist()


def test_features_above_a_stage_are_extracted_once_from_those_below_it_for_the_rows_and_views_of_the_phase(
    tmp_path: Path,
) -> None:
    inputs = inputs_of_images(tmp_path, thawing("top", "stages:2", augment="light"))
    backbone = inputs.backbone
    below, low = inputs.sources_of(0), backbone.cut("stages:2")
    high = backbone.raised(low, 1)
    for _ in range(2):
        above = below.above(backbone, low.position, high.position)
        assert len([*(tmp_path / "features").iterdir()]) == 2 * 3
        for lower, upper in ((below.train, above.train), (below.val, above.val)):
            assert lower and upper
            for epoch in range(2):
                (values, targets), (at, expected) = (
                    each.batch(np.arange(len(lower)), epoch) for each in (lower, upper)
                )
                with torch.no_grad():
                    advanced = backbone.advance(values, low.position, high.position)
                assert torch.allclose(advanced.values, at.values, atol=1e-5) and torch.equal(targets, expected)
