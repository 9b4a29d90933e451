"""The plan of a baseline: a linear head on plain views, trained before the plan measures what takes longer."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from math import isinf

from thaw.data.augment import PRESETS
from thaw.planning.costs import seconds_of_penalty
from thaw.planning.measurements import Measurements
from thaw.planning.plan import MAX_LBFGS_BYTES
from thaw.recipe import AugmentSettings, ResolvedRecipe
from thaw.training.baseline import BASELINE
from thaw.training.head_solver import PENALTIES
from thaw.training.phases import PLAIN, input_plans


def can_have_baseline(recipe: ResolvedRecipe, measured: Measurements) -> bool:
    """Whether a run begins with no more than a linear head on cached features, and no phase takes its name.

    The features of plain views must fit into memory at once, with logits where those are many.
    """
    first, names = recipe.phases[0], {phase.name for phase in recipe.phases}
    can_solve = recipe.can_solve(first) and measured.bytes_to_solve(views=1) <= MAX_LBFGS_BYTES
    return can_solve and first.inputs == "cached" and BASELINE not in names


def baseline_seconds(measured: Measurements) -> float:
    """What a baseline of many outputs takes to multiply features; 0 for few, of which it takes two or three seconds."""
    if isinf(measured.solving):
        return 0.0
    return len(PENALTIES) * seconds_of_penalty(measured.images.train, measured.stored(0), measured.solving)


def baseline_identity(recipe: ResolvedRecipe, manifest: str) -> str:
    """The identity of what a baseline was trained on: features, and images by the SHA-256 of their manifest.

    That of its run is the same, unless the plan has taken images of another size since.
    """
    shared = recipe.model_dump_json(include={"backbone", "weights", "decode", "preprocessing", "head", "class_weights"})
    return hashlib.sha256(f"{shared} {manifest}".encode()).hexdigest()[:16]


def baseline_recipe(recipe: ResolvedRecipe) -> ResolvedRecipe:
    """The recipe of the baseline of a run that can have one."""
    first = recipe.phases[0]
    changes = {"name": BASELINE, "solver": "lbfgs", "epochs": len(PENALTIES), "augment": None, "inputs": "cached"}
    return recipe.model_copy(
        update={
            "phases": (first.model_copy(update=changes),),
            "augment": AugmentSettings(preset="none", **asdict(PRESETS["none"])),
            "views": 1,
            "target": None,
        }
    )


def begins_with(recipe: ResolvedRecipe, baseline: ResolvedRecipe | None) -> bool:
    """Whether the first phase of a run is its baseline: the same head, fitted to the same features for as long.

    Args:
        recipe: That of the run.
        baseline: That of the baseline that it has.
    """
    planned, first, inputs = baseline_recipe(recipe), recipe.phases[0], input_plans(recipe)[0]
    is_same_phase = planned.phases == (first.model_copy(update={"name": BASELINE, "augment": None}),)
    # A run stops where it reaches its target, which a baseline does not have.
    return planned == baseline and is_same_phase and inputs.augmentation == PLAIN and recipe.target is None
