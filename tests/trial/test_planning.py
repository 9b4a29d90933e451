"""What a plan makes of a time limit, on real images."""

from pathlib import Path

import pytest

from tests.searches import RECIPE
from thaw.data.dataset import Dataset
from thaw.planning.plan import Plan
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
    assert why(plan, "time_limit").startswith("measuring and training take ") and not why(unlimited, "time_limit")


def test_a_short_limit_leaves_the_fewest_epochs_of_the_top_stages(images: Path) -> None:
    plan, unlimited = planned(images, RECIPE, SECOND), planned(images, RECIPE, None)
    assert len(epochs(unlimited)) == 2
    assert epochs(plan) == [("fine-tune", LEAST_EPOCHS)]
    assert plan.recipe.phases[0] == unlimited.recipe.phases[0]
    assert len(plan.forecast.phase_seconds) == 2
    assert "to fit into the time limit" in why(plan, "phases.1.epochs")
    assert "exceeded" in why(plan, "time_limit") and "phase deeper is left out" in why(plan, "time_limit")
    assert not any(choice.setting.startswith("phases.2.") for choice in plan.choices)


def test_a_strategy_that_nobody_asked_for_becomes_shallower(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.planning.strategy.TABLE", dict.fromkeys(TABLE, "top"))
    monkeypatch.setattr("thaw.planning.strategy.FEW_PER_CLASS", 1)
    recipe = Recipe(backbone="starter", threads=1, preprocessing=RECIPE.preprocessing)
    plan = planned(images, recipe, SECOND)
    assert not epochs(plan)
    assert f"even {LEAST_EPOCHS} epochs of top would exceed the time limit" in why(plan, "strategy")


def test_phases_that_the_recipe_names_stay(images: Path, quick: Recipe) -> None:
    plan = planned(images, quick, SECOND)
    assert [phase.epochs for phase in plan.recipe.phases] == [phase.epochs for phase in quick.phases]
    assert why(plan, "time_limit").startswith("exceeded: ")


def test_epochs_that_were_asked_for_stay(images: Path) -> None:
    plan = planned(images, RECIPE.with_settings({"phases.1.epochs": 7}), SECOND)
    assert epochs(plan) == [("fine-tune", 7)] and why(plan, "phases.1.epochs") == "as requested"


def test_a_plan_is_a_recipe_without_a_limit(images: Path) -> None:
    assert planned(images, RECIPE, SECOND).recipe.time_limit is None
