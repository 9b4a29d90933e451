"""Whether images are squashed: asked first, because what a crop leaves out no augmentation brings back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.striped_images import at_the_ends, striped
from thaw.planning.sample_features import SampleFeatures
from thaw.planning.selected import Selected
from thaw.planning.selecting import Questions
from thaw.progress import NullReporter
from thaw.recipe import MeasureSettings, PreprocessingSettings, Recipe
from thaw.selection import tester
from thaw.trial import plan_trial
from thaw.trial.planning import PlannedTrial

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
    settings, compare = list[str](), tester.Tester.compare

    def noted(self: tester.Tester, setting: str, *others: Any) -> Any:
        settings.append(setting)
        return compare(self, setting, *others)

    monkeypatch.setattr(tester.Tester, "compare", noted)
    return settings


def test_elongated_images_are_squashed_where_their_ends_tell_the_classes_apart(
    asked: list[str], tmp_path: Path
) -> None:
    plan = plan_trial(striped(tmp_path / "images", 160, at_the_ends(160)), RECIPE, None, NullReporter()).plan
    assert plan.recipe.preprocessing.crop_mode == "squash"
    (choice,) = (each for each in plan.choices if each.setting == "preprocessing.crop_mode")
    assert choice.value == "squash" and "center -" in choice.reason
    assert asked[0] == "preprocessing.crop_mode" and "augment.preset" in asked


def test_everything_after_the_crop_is_found_out_on_squashed_images(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.planning.draft.BASELINE_FROM", 0.0)
    monkeypatch.setattr(Questions, "all", lambda self, *_: measured_on.append(self._features) or Selected({}, ()))
    measured_on, baselines = list[SampleFeatures](), list[PlannedTrial]()
    dataset = striped(tmp_path / "images", 160, at_the_ends(160))
    plan_trial(dataset, RECIPE, None, NullReporter(), baselines.append)
    assert [each.prepared.pixels.spec.crop_mode for each in measured_on] == ["squash"]
    assert [each.classifier.backbone.facts.pixels.crop_mode for each in baselines] == ["squash"]
    assert [each.plan.recipe.preprocessing.crop_mode for each in baselines] == ["squash"]


def test_a_crop_that_was_found_out_is_remembered(asked: list[str], tmp_path: Path) -> None:
    dataset = striped(tmp_path / "images", 160, at_the_ends(160))
    first = plan_trial(dataset, RECIPE, None, NullReporter()).plan
    asked.clear()
    again = plan_trial(dataset, RECIPE, None, NullReporter()).plan
    assert again.recipe.preprocessing == first.recipe.preprocessing and not asked
    reasons = [choice.reason for choice in again.choices if choice.setting == "preprocessing.crop_mode"]
    assert len(reasons) == 1 and reasons[0].startswith("remembered from an earlier run: ")


def test_a_crop_that_stays_says_why(asked: list[str], tmp_path: Path) -> None:
    plan = plan_trial(striped(tmp_path / "images", 160, [slice(60, 100)]), RECIPE, None, NullReporter()).plan
    (choice,) = (each for each in plan.choices if each.setting == "preprocessing.crop_mode")
    assert plan.recipe.preprocessing.crop_mode == choice.value == "center" and "squash" in choice.reason


@pytest.mark.parametrize(("width", "changes"), [(64, {}), (160, {"preprocessing.crop_mode": "center"})])
def test_nothing_is_asked_of_square_images_or_where_the_recipe_says_it(
    width: int, changes: dict[str, Any], asked: list[str], tmp_path: Path
) -> None:
    recipe = RECIPE.with_settings(changes)
    plan = plan_trial(striped(tmp_path / "images", width, at_the_ends(width)), recipe, None, NullReporter()).plan
    assert plan.recipe.preprocessing.crop_mode == "center" and "preprocessing.crop_mode" not in asked
