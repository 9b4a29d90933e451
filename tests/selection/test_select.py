"""The questions of the plan, on synthetic features."""

from __future__ import annotations

import numpy as np
import pytest

from thaw.data.augment import PRESETS, Augmentation
from thaw.selection import tester
from thaw.selection.budget import Budget
from thaw.selection.estimates import Folding
from thaw.selection.heads import HeadSetting
from thaw.selection.select import Answer, SampleViews, Selection

IMAGES, WIDTH = 120, 40


def asked(effect: str, images: int = IMAGES) -> tuple[list[tuple[str, int]], Answer]:
    """The presets whose views are extracted with their number of images, where all of them help or hurt; the answer."""
    draws = np.random.default_rng(0)
    targets = np.arange(images) % 2
    centres = draws.normal(size=(2, WIDTH)) / 4
    plain = centres[targets] + draws.normal(size=(images, WIDTH))
    extracted = []

    def view(augmentation: Augmentation, chosen: np.ndarray) -> np.ndarray:
        preset = next((name for name, preset in PRESETS.items() if preset == augmentation), "without a kind")
        extracted.append((preset, len(chosen)))
        if effect == "none":
            return plain[chosen]
        # More examples of the same classes, or of the wrong ones.
        labels = targets[chosen] if effect == "helps" else 1 - targets[chosen]
        return centres[labels] + draws.normal(size=(len(chosen), WIDTH)) / 4

    folding = Folding(np.arange(images) // 2 % 5, np.arange(images))
    selection = Selection(
        SampleViews(plain.astype(np.float32), lambda *wanted: view(*wanted).astype(np.float32), (WIDTH,), 0.0),
        tester.Tester(targets, 2, "multiclass", "accuracy", (folding,)),
        (folding,),
        HeadSetting("last", "none"),
        Budget(1000.0),
    )
    selection.ask_augmentation()
    (answer,) = selection.answers
    return extracted, answer


@pytest.mark.parametrize(("effect", "strong"), [("helps", True), ("hurts", False)])
def test_a_strong_augmentation_is_tried_only_where_the_standard_one_helps(effect: str, strong: bool) -> None:
    extracted, answer = asked(effect)
    presets = [preset for preset, _ in extracted]
    assert presets[:2] == ["standard", "light"] and ("strong" in presets) == strong
    assert ("without a kind" in presets) == (effect == "hurts")
    assert (answer.changes["augment"]["preset"] == "none") == (effect == "hurts")


def test_an_augmentation_that_changes_nothing_is_looked_at_on_a_part_of_the_images_only() -> None:
    extracted, answer = asked("none", images=600)
    assert extracted == [("standard", 200)]
    assert answer.changes == {"augment": {"preset": "none"}, "thawed": {"preset": "standard"}}
    assert "200 images" in answer.reason


@pytest.mark.parametrize("effect", ["helps", "hurts"])
def test_an_effect_on_a_part_of_the_images_is_measured_on_all_of_them(effect: str) -> None:
    extracted, answer = asked(effect, images=600)
    assert extracted[0] == ("standard", 200) and {count for _, count in extracted[1:]} == {600}
    assert (answer.changes["augment"]["preset"] == "none") == (effect == "hurts")
