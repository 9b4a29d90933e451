"""The recipe of a baseline: a linear head on plain views, trained before the plan measures what takes longer."""

from __future__ import annotations

from dataclasses import asdict

from thaw.data.augment import PRESETS
from thaw.recipe import AugmentSettings, ResolvedRecipe
from thaw.training.head_solver import PENALTIES

PHASE = "baseline"
"""The name of its only phase."""


def can_have_baseline(recipe: ResolvedRecipe) -> bool:
    """Whether a run begins with no more than a linear head on cached features."""
    first = recipe.phases[0]
    return recipe.can_solve(first) and first.inputs == "cached"


def baseline_recipe(recipe: ResolvedRecipe) -> ResolvedRecipe:
    """The recipe of the baseline of a run that can have one."""
    first = recipe.phases[0]
    changes = {"name": PHASE, "solver": "lbfgs", "epochs": len(PENALTIES), "augment": None, "inputs": "cached"}
    return recipe.model_copy(
        update={
            "phases": (first.model_copy(update=changes),),
            "augment": AugmentSettings(preset="none", **asdict(PRESETS["none"])),
            "views": 1,
            "target": None,
        }
    )
