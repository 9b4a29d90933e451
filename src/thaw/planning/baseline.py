"""The recipe of a baseline: a linear head on plain views, trained before the plan measures what takes longer."""

from __future__ import annotations

from dataclasses import asdict

from thaw.data.augment import PRESETS
from thaw.recipe import AugmentSettings, ResolvedRecipe
from thaw.training.head_solver import PENALTIES

PHASE = "baseline"
"""The name of its only phase."""


def baseline_recipe(recipe: ResolvedRecipe) -> ResolvedRecipe | None:
    """The recipe of the baseline of a run; `None` where it begins with more than a linear head on cached features."""
    first = recipe.phases[0]
    if not recipe.can_solve(first) or first.inputs != "cached":
        return None
    changes = {"name": PHASE, "solver": "lbfgs", "epochs": len(PENALTIES), "augment": None}
    return recipe.model_copy(
        update={
            "phases": (first.model_copy(update=changes),),
            "augment": AugmentSettings(preset="none", **asdict(PRESETS["none"])),
            "views": 1,
        }
    )
