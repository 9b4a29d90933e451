"""How an update trains: the head on old and new features, then what the run had thawed, more gently than at first."""

from __future__ import annotations

from thaw.recipe import HEAD_PHASE, USUAL_BATCH, Phase, ResolvedPhase, ResolvedRecipe, Task
from thaw.training.head_solver import PENALTIES
from thaw.updating.stored_run import StoredRun

GENTLER = 0.3
"""What the learning rate of a thawed phase is multiplied by: its weights are those of the run already."""

EPOCHS = 8
"""Most epochs of a thawed phase."""


def update_recipe(run: StoredRun, task: Task) -> ResolvedRecipe:
    """The recipe of an update; that of an update of an update is the same."""
    recipe = run.recipe.model_copy(update={"task": task, "target": None})
    if run.is_update:
        return recipe
    thawed = [phase for phase in recipe.phases if phase.cut != "head"]
    return recipe.model_copy(update={"phases": (_head_phase(recipe), *(_gentler(phase) for phase in thawed))})


def _head_phase(recipe: ResolvedRecipe) -> ResolvedPhase:
    """The phase of the head: solved where it is linear, else as the run trained it."""
    found = next((phase for phase in recipe.phases if phase.cut == "head"), None)
    names = {phase.name for phase in recipe.phases if phase.cut != "head"}
    phase: Phase = found or HEAD_PHASE.model_copy(
        update={"name": next(n for n in ("head", "new-head") if n not in names)}
    )
    values = {**phase.model_dump(), "mixup": 0.0, "inputs": "cached", "optional": False}
    if recipe.head.hidden:
        size = USUAL_BATCH if phase.batch_size == "auto" else phase.batch_size
        return ResolvedPhase.model_validate({**values, "solver": "optimizer", "batch_size": size})
    return ResolvedPhase.model_validate(
        {**values, "solver": "lbfgs", "epochs": len(PENALTIES), "batch_size": USUAL_BATCH}
    )


def _gentler(phase: ResolvedPhase) -> ResolvedPhase:
    """A phase that goes on from the weights that it led to."""
    changes = {"lr": phase.lr * GENTLER, "epochs": min(phase.epochs, EPOCHS), "optional": False, "inputs": "cached"}
    return phase.model_copy(update=changes)
