"""What a plan makes of a time limit, on real images."""

from pathlib import Path
from typing import Any

import pytest

from tests.searches import RECIPE
from thaw.clock import Clock
from thaw.data.dataset import Dataset
from thaw.data.duplicates import NearDuplicate
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import Prepared
from thaw.errors import RecipeError
from thaw.planning.measurements import Measurements
from thaw.planning.measuring import Trainable
from thaw.planning.plan import Plan
from thaw.planning.selected import Selected
from thaw.planning.selecting import Questions
from thaw.planning.strategy import TABLE
from thaw.planning.time_limit import LEAST_EPOCHS
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.trial import plan_trial

HOUR, SECOND = 3600.0, 1.0


def planned(images: Path, recipe: Recipe, seconds: float | None) -> Plan:
    limited = recipe.model_copy(update={"time_limit": seconds})
    return plan_trial(Dataset.open(images), limited, None, NullReporter()).plan


def epochs(plan: Plan) -> list[tuple[str, int]]:
    return [(phase.name, phase.epochs) for phase in plan.recipe.phases if phase.cut != "head"]


def why(plan: Plan, setting: str) -> str:
    return next((choice.reason for choice in plan.choices if choice.setting == setting), "")


def test_a_limit_with_room_changes_nothing(images: Path) -> None:
    plan, unlimited = planned(images, RECIPE, HOUR), planned(images, RECIPE, None)
    assert plan.recipe.phases == unlimited.recipe.phases
    assert why(plan, "time_limit").startswith("training should take ") and not why(unlimited, "time_limit")


def test_a_short_limit_leaves_the_fewest_epochs_of_the_top_stages(images: Path) -> None:
    plan, unlimited = planned(images, RECIPE, SECOND), planned(images, RECIPE, None)
    assert len(epochs(unlimited)) == 2
    assert epochs(plan) == [("fine-tune", LEAST_EPOCHS)]
    assert plan.recipe.phases[0] == unlimited.recipe.phases[0]
    assert len(plan.forecast.phase_seconds) == 2
    assert "to fit into the time limit" in why(plan, "phases.1.epochs")
    assert "exceeded" in why(plan, "time_limit") and "phase deeper is left out" in why(plan, "time_limit")
    assert not any(choice.setting.startswith("phases.2.") for choice in plan.choices)


@pytest.fixture
def auto(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose strategy is planned as top."""
    monkeypatch.setattr("thaw.planning.strategy.TABLE", dict.fromkeys(TABLE, "top"))
    monkeypatch.setattr("thaw.planning.strategy.FEW_PER_CLASS", 1)
    return Recipe(backbone="starter", threads=1, preprocessing=RECIPE.preprocessing)


def test_a_strategy_that_nobody_asked_for_becomes_shallower(images: Path, auto: Recipe) -> None:
    plan = planned(images, auto, SECOND)
    assert not epochs(plan)
    assert f"{LEAST_EPOCHS} epochs of top would exceed the time limit" in why(plan, "strategy")


def test_a_strategy_stays_that_settings_of_its_phases_are_for(images: Path, auto: Recipe) -> None:
    plan = planned(images, auto.with_settings({"strategy": "auto", "phases.1.lr": 1e-4}), SECOND)
    assert epochs(plan) == [("fine-tune", LEAST_EPOCHS)]


def test_what_timing_steps_takes_comes_out_of_the_limit(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Trainable.timed

    def slow(self: Trainable, *arguments: Any) -> Measurements:
        monkeypatch.setattr(Clock, "elapsed", 40.0)
        return timed(self, *arguments)

    monkeypatch.setattr(Trainable, "timed", slow)
    monkeypatch.setattr(Clock, "elapsed", 0.0)
    plan = planned(images, RECIPE, 60.0)
    assert "of the 5.0 s that are left" in why(plan, "time_limit")


def test_phases_are_fitted_again_once_settings_are_measured(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Questions, *arguments: Any) -> Selected:
        monkeypatch.setattr(Clock, "elapsed", HOUR - 20.0)
        return Selected({}, ())

    monkeypatch.setattr(Questions, "all", slow)
    monkeypatch.setattr(Clock, "elapsed", 0.0)
    plan = planned(images, RECIPE, HOUR)
    assert "of the 5.0 s that are left" in why(plan, "time_limit")
    assert plan.forecast.seconds <= 5.0 or epochs(plan) == [("fine-tune", LEAST_EPOCHS)]


def test_the_split_stays_once_another_preprocessing_is_measured(
    images: Path, auto: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pairs(self: PixelStore, *arguments: Any) -> list[NearDuplicate]:
        """As where images differ in what only one of the two preprocessings shows."""
        rows = range(0, len(self.facts) - 1, 2) if self.spec.crop_mode == "center" else ()
        return [NearDuplicate(row, row + 1, 1.0) for row in rows]

    monkeypatch.setattr(PixelStore, "duplicates", pairs)
    measured_on = list[Prepared]()

    def squashed(self: Questions, *arguments: Any) -> Selected:
        measured_on.append(self._features.prepared)
        return Selected({"preprocessing.crop_mode": "squash"}, ())

    monkeypatch.setattr(Questions, "all", squashed)
    recipe = auto.with_settings({"preprocessing.crop_mode": "center", "preprocessing.crop_pct": 1.0})
    found = plan_trial(Dataset.open(images), recipe, None, NullReporter())
    assert found.plan.recipe.preprocessing.crop_mode == "squash"
    assert measured_on[0].duplicates and not found.prepared.duplicates
    assert found.prepared.manifest.column("split") == measured_on[0].manifest.column("split")


@pytest.mark.parametrize(("seconds", "expected"), [(None, ["head"]), (10 * HOUR, ["head", "fine-tune"])])
def test_a_limit_replaces_the_longest_time_of_a_phase(
    seconds: float | None, expected: list[str], images: Path, auto: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.planning.draft.MAX_PHASE_SECONDS", 0.0)
    found = [phase.name for phase in planned(images, auto, seconds).recipe.phases]
    assert found[: len(expected)] == expected and (seconds or len(found) == 1)


def test_phases_that_the_recipe_names_stay(images: Path, quick: Recipe) -> None:
    plan = planned(images, quick, SECOND)
    assert [phase.epochs for phase in plan.recipe.phases] == [phase.epochs for phase in quick.phases]
    assert why(plan, "time_limit").startswith("exceeded by ")


def test_epochs_that_were_asked_for_stay(images: Path) -> None:
    plan = planned(images, RECIPE.with_settings({"phases.1.epochs": 7}), SECOND)
    assert epochs(plan) == [("fine-tune", 7)] and why(plan, "phases.1.epochs") == "as requested"


def test_a_plan_is_a_recipe_without_a_limit(images: Path) -> None:
    assert planned(images, RECIPE, SECOND).recipe.time_limit is None


def test_a_limit_for_the_choice_of_a_backbone_is_refused_where_none_is_chosen(images: Path) -> None:
    with pytest.raises(RecipeError, match="max_size_mb: is for backbone auto"):
        plan_trial(Dataset.open(images), Recipe(max_size_mb=5), None, NullReporter())


def test_a_decision_for_a_class_that_there_is_not_is_refused_by_a_plan(images: Path) -> None:
    recipe = RECIPE.with_settings({"decision": {"recall": {"scrath": 0.99}}})
    with pytest.raises(RecipeError, match="there is no class 'scrath'"):
        plan_trial(Dataset.open(images), recipe, None, NullReporter())
