"""The first thawing phase freezes its lowest stage again where that pays and fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.device import DeviceChoice
from thaw.planning import freezing
from thaw.planning.freezing import SETTING, with_freezing
from thaw.planning.measurements import PlannedRecipe
from thaw.planning.strategy import apply_strategy
from thaw.recipe import Recipe


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build("mobilenetv3_small_050", "random")


def planned(backbone: Backbone, images: int = 2000, **settings: Any) -> PlannedRecipe:
    """The phases that thaw the top, with some settings."""
    given = {f"phases.1.{name}": value for name, value in settings.items()}
    recipe = Recipe(weights="a.safetensors").with_settings({"strategy": "top", **given})
    return with_freezing(apply_strategy(recipe, "top", "", backbone, images), "top", backbone, recipe.phase_settings)


def said(found: PlannedRecipe) -> list[str]:
    return [choice.value for choice in found.choices if choice.setting == SETTING]


@pytest.mark.parametrize(
    ("images", "settings", "expected"),
    [
        (2000, {}, (2,)),
        (2000, {"epochs": 60}, (15,)),
        (2000, {"epochs": 4}, ()),
        # So many images that there are few epochs.
        (20_000, {}, ()),
        (2000, {"cut": "pixels"}, ()),
    ],
)
def test_it_is_frozen_after_a_quarter_of_the_epochs_that_are_trained(
    images: int, settings: dict[str, Any], expected: tuple[int, ...], backbone: Backbone
) -> None:
    found = planned(backbone, images, **settings)
    head, top, *deeper = found.recipe.phases
    assert top.freeze_after == expected and {phase.freeze_after for phase in (head, *deeper)} == {()}
    assert said(found) == [str(after) for after in expected]


def test_nothing_is_frozen_again_on_an_accelerator(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    found = DeviceChoice(torch.device("cuda"), "found")
    monkeypatch.setattr(freezing, "choose_device", lambda wanted: found)
    assert planned(backbone).recipe.phases[1].freeze_after == ()


def test_a_phase_of_one_stage_freezes_nothing_again() -> None:
    found = planned(build("resnet18", "random"))
    assert found.recipe.phases[1].cut == "layer4" and found.recipe.phases[1].freeze_after == () == tuple(said(found))


@pytest.mark.parametrize("asked", [[], [2]])
def test_what_was_asked_for_stays(asked: list[int], backbone: Backbone) -> None:
    found = planned(backbone, freeze_after=asked)
    assert found.recipe.phases[1].freeze_after == tuple(asked) and said(found) == [str(asked)]
