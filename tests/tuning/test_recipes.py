"""Recipes of trials: what the plan and the user have decided stays in all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.searches import RECIPE
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.progress import NullReporter
from thaw.recipe import HEAD_PHASE, Recipe, ResolvedRecipe
from thaw.recipe.ranges import Range, Values
from thaw.trial import plan_trial
from thaw.tuning.recipes import KNOWN, base_recipe, known_settings, recipe_of, settings_of_plan, trains_head_only


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=8, size=48, classes=("ok", "scratch"))
    return folder


def planned(surfaces: Path, requested: Recipe) -> ResolvedRecipe:
    return plan_trial(Dataset.open(surfaces), requested, None, NullReporter()).plan.recipe


def first_trial(requested: Recipe, plan: ResolvedRecipe) -> Recipe:
    return recipe_of(base_recipe(requested, plan), settings_of_plan(plan), {plan.backbone: plan.weights})


def test_the_first_trial_has_the_augmentation_of_the_plan_where_it_is_no_preset(surfaces: Path) -> None:
    requested = RECIPE.with_settings({"augment.preset": "standard", "augment.vertical_flip": True})
    plan = planned(surfaces, requested)
    assert settings_of_plan(plan)["phases.0.augment"] is None
    trial = first_trial(requested, plan)
    assert trial.augment == plan.augment and [phase.augment for phase in trial.phases] == [None, None]


def test_the_first_trial_names_the_preset_of_the_plan(surfaces: Path) -> None:
    requested = RECIPE.with_settings({"augment.preset": "light"})
    plan = planned(surfaces, requested)
    assert settings_of_plan(plan)["phases.0.augment"] == settings_of_plan(plan)["phases.1.augment"] == "light"


def test_settings_that_were_requested_are_those_of_every_trial(surfaces: Path) -> None:
    settings = {"phases.0.solver": "optimizer", "phases.0.epochs": 50, "phases.1.inputs": "fresh"}
    for requested in (Recipe().with_settings(settings), RECIPE.with_settings({**settings, "strategy": "top"})):
        requested = RECIPE.model_copy(
            update={name: getattr(requested, name) for name in ("phases", "phase_settings", "strategy")}
        )
        head, top = base_recipe(requested, planned(surfaces, requested)).phases
        assert (head.solver, head.epochs, top.inputs) == ("optimizer", 50, "fresh")


def test_what_was_not_requested_is_left_to_the_plan_of_each_trial(surfaces: Path) -> None:
    head, top = base_recipe(RECIPE, planned(surfaces, RECIPE)).phases
    assert (head.solver, head.inputs, head.epochs) == ("auto", "auto", HEAD_PHASE.epochs)
    assert (top.solver, top.inputs, top.optional) == ("auto", "auto", False)


@pytest.mark.parametrize("settings", [{"strategy": "head"}, {"phases": [HEAD_PHASE.model_dump(mode="json")]}])
def test_where_the_head_alone_was_requested_no_trial_thaws(surfaces: Path, settings: dict) -> None:
    requested = Recipe.from_values(RECIPE.model_dump(mode="json", exclude={"strategy", "phases"}) | settings)
    assert trains_head_only(requested) and not trains_head_only(RECIPE)
    plan = planned(surfaces, requested)
    assert [phase.cut for phase in first_trial(requested, plan).phases] == ["head"]
    base = base_recipe(requested, plan)
    others = recipe_of(base, known_settings("fastai", ["phases.1.cut"], {}, base), {})
    assert [phase.cut for phase in others.phases] == ["head"]


def test_recipes_of_others_keep_what_is_fixed_and_stay_in_ranges_that_were_given() -> None:
    found = known_settings("guide", ["phases.1.cut"], {"phases.1.lr": Range(1e-4, 1e-3, log=True)}, Recipe())
    assert "phases.1.cut" not in found and found["phases.1.lr"] == 1e-4
    assert found["phases.0.lr"] == KNOWN["guide"]["phases.0.lr"]
    assert known_settings("guide", [], {}, Recipe()) == KNOWN["guide"]


@pytest.mark.parametrize("origin", KNOWN)
def test_recipes_of_others_freeze_no_stage_again(origin: str) -> None:
    # As the plan does on a CPU.
    base = Recipe().with_settings({"phases.1.freeze_after": [5]})
    assert recipe_of(base, known_settings(origin, [], {}, base), {}).phases[1].freeze_after == ()
    kept = known_settings(origin, ["phases.1.freeze_after"], {}, base)
    assert recipe_of(base, kept, {}).phases[1].freeze_after == (5,)


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        (("head", "pixels"), "pixels"),
        # That of the plan, which has stages:3, where it is in the range; else the first one.
        (("head", "stages:1", "stages:3"), "stages:3"),
        (("stages:1", "stages:2"), "stages:1"),
    ],
)
def test_a_cut_of_others_that_was_not_given_is_that_of_the_plan(cuts: tuple[str, ...], expected: str) -> None:
    assert known_settings("fastai", [], {"phases.1.cut": Values(cuts)}, Recipe())["phases.1.cut"] == expected


def test_a_recipe_that_a_plan_has_written_leaves_every_head_to_be_tried(surfaces: Path) -> None:
    written = planned(surfaces, RECIPE)
    assert written.phases[0].solver == "lbfgs"
    requested = Recipe.from_values(written.model_dump(mode="json") | {"strategy": "manual"})
    head, top = base_recipe(requested, written).phases
    assert (head.solver, head.inputs, head.epochs, top.inputs) == ("auto", "auto", HEAD_PHASE.epochs, "auto")
    recipe_of(base_recipe(requested, written), {"head.hidden": [16], "phases.0.mixup": 0.2}, {})


def test_the_phase_that_thaws_keeps_its_own_settings_wherever_it_is(surfaces: Path) -> None:
    top = RECIPE.phases[1].model_copy(update={"name": "only", "cut": "stages:1", "inputs": "fresh"})
    for phases in ((top,), (HEAD_PHASE, HEAD_PHASE.model_copy(update={"name": "again", "solver": "lbfgs"}), top)):
        requested = RECIPE.model_copy(update={"strategy": "manual", "phases": phases})
        thawed = base_recipe(requested, planned(surfaces, requested)).phases[1]
        assert (thawed.cut, thawed.solver, thawed.inputs) == ("stages:1", "auto", "fresh")
