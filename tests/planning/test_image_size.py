"""Whether images are squashed: asked first, because what a crop leaves out no augmentation brings back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thaw.data.dataset import Dataset
from thaw.progress import NullReporter
from thaw.recipe import MeasureSettings, PreprocessingSettings, Recipe
from thaw.selection.select import Selection
from thaw.trial import plan_trial

RECIPE = Recipe(
    backbone="starter",
    engine="pytorch-fp32",
    strategy="head",
    threads=1,
    measure=MeasureSettings(seconds=1000, image_sizes=()),
    preprocessing=PreprocessingSettings(image_size=64),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The settings that are asked about, in order; nothing is remembered."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    settings, answer = list[str](), Selection._answer

    def noted(self: Selection, question: Any, *others: Any) -> None:
        settings.append(question.setting)
        answer(self, question, *others)

    monkeypatch.setattr(Selection, "_answer", noted)
    return settings


def striped(folder: Path, width: int) -> Dataset:
    """Images of grey noise, of which one class has white stripes at both ends."""
    rng = np.random.default_rng(0)
    for name in ("plain", "striped"):
        (folder / name).mkdir(parents=True)
        for number in range(45):
            pixels = rng.integers(80, 120, (64, width, 3), dtype=np.uint8)
            if name == "striped":
                pixels[::6, : width // 6] = pixels[::6, -width // 6 :] = 250
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return Dataset.open(folder)


def test_elongated_images_are_squashed_where_their_ends_tell_the_classes_apart(
    asked: list[str], tmp_path: Path
) -> None:
    plan = plan_trial(striped(tmp_path / "images", width=160), RECIPE, None, NullReporter()).plan
    assert plan.recipe.preprocessing.crop_mode == "squash"
    (choice,) = (each for each in plan.choices if each.setting == "preprocessing.crop_mode")
    assert choice.value == "squash" and "center -" in choice.reason
    assert asked.index("preprocessing.crop_mode") < asked.index("augment.preset")


@pytest.mark.parametrize(("width", "changes"), [(64, {}), (160, {"preprocessing.crop_mode": "center"})])
def test_nothing_is_asked_of_square_images_or_where_the_recipe_says_it(
    width: int, changes: dict[str, Any], asked: list[str], tmp_path: Path
) -> None:
    recipe = RECIPE.with_settings(changes)
    plan = plan_trial(striped(tmp_path / "images", width), recipe, None, NullReporter()).plan
    assert plan.recipe.preprocessing.crop_mode == "center" and "preprocessing.crop_mode" not in asked
