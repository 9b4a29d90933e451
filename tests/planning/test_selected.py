"""What becomes of a recipe, and of the reasons, once something was measured."""

from __future__ import annotations

from typing import Any

from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.planning.selected import Selected, with_selected
from thaw.recipe import AugmentSettings, Phase, Recipe

HEAD_ALONE = Recipe(phases=(Phase(name="head", cut="head", epochs=1, lr=1e-3),))


def found(recipe: Recipe, of_head: dict[str, Any], of_thawed: dict[str, Any]) -> PlannedRecipe:
    why = (
        Choice("head.features", "all", "measured"),
        Choice("augment.preset", of_head["preset"], "compared with others"),
    )
    planned = PlannedRecipe(recipe, (Choice("strategy", "top", "as requested"),))
    return with_selected(planned, Selected({"augment": of_head, "thawed": of_thawed}, why))


def reasons(planned: PlannedRecipe) -> dict[str, tuple[str, str]]:
    return {choice.setting: (choice.value, choice.reason) for choice in planned.choices}


def test_thawed_stages_keep_an_augmentation_that_the_head_does_not_use() -> None:
    planned = found(Recipe(strategy="manual"), {"preset": "none"}, {"preset": "standard", "horizontal_flip": 0.0})
    assert planned.recipe.augment == AugmentSettings(preset="standard", horizontal_flip=0.0)
    assert [phase.augment for phase in planned.recipe.phases] == ["none", None]


def test_the_plan_tells_the_augmentation_of_the_head_from_that_of_thawed_stages() -> None:
    planned = found(Recipe(strategy="manual"), {"preset": "none"}, {"preset": "standard", "horizontal_flip": 0.0})
    assert reasons(planned) == {
        "strategy": ("top", "as requested"),
        "head.features": ("all", "measured"),
        "augment.preset": (
            "standard, horizontal_flip 0.0",
            "for thawed stages; no worse than none beyond noise where the head is trained with it",
        ),
        "phases.0.augment": ("none", "compared with others"),
    }


def test_a_head_phase_with_an_augmentation_of_its_own_keeps_it() -> None:
    head, top = Recipe().phases
    recipe = Recipe(strategy="manual", phases=(head.model_copy(update={"augment": "light"}), top))
    planned = found(recipe, {"preset": "none"}, {"preset": "standard"})
    assert [phase.augment for phase in planned.recipe.phases] == ["light", None]
    assert "phases.0.augment" not in reasons(planned)


def test_a_head_alone_has_the_augmentation_of_the_recipe() -> None:
    planned = found(HEAD_ALONE, {"preset": "none"}, {"preset": "standard"})
    assert (planned.recipe.augment.preset, planned.recipe.phases[0].augment) == ("none", None)
    assert reasons(planned)["augment.preset"] == ("none", "compared with others")


def test_a_transformation_that_hurts_is_left_out() -> None:
    settings = {"preset": "standard", "rotation": 0.0}
    planned = found(Recipe(), settings, settings)
    assert planned.recipe.augment == AugmentSettings(preset="standard", rotation=0.0)
    assert all(phase.augment is None for phase in planned.recipe.phases)
