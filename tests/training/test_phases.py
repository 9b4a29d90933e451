from typing import Any

import pytest
import torch

from thaw.backbones.timm_backbone import build
from thaw.progress import NullReporter
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase, Recipe
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
