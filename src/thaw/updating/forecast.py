"""How long an update should take, from what its run was predicted to take for its own images."""

from __future__ import annotations

from thaw.planning.costs import Forecast
from thaw.recipe import ResolvedRecipe
from thaw.training.phases import input_plans
from thaw.updating.new_images import NewImages
from thaw.updating.stored_run import StoredRun


def forecast_update(run: StoredRun, new: NewImages, recipe: ResolvedRecipe) -> Forecast:
    """Extraction of the new images only, and epochs over all."""
    before, epochs = run.plan.predicted, dict[str, float]()
    for phase, seconds in zip(run.folder.read_recipe().phases, before.epoch_seconds, strict=False):
        epochs[phase.name] = seconds
    # A run that is an update itself extracted its own new images only.
    first = len(run.manifest) - run.parts[-1].images
    views = input_plans(run.recipe)[-1].views
    extracted = {"train": max(views, 1), "val": 1, "test": 1}
    earlier = sum(number * int((run.manifest.indices(split) >= first).sum()) for split, number in extracted.items())
    now = sum(number * len(new.rows(split)) for split, number in extracted.items())
    growth = len(new.manifest.indices("train")) / max(1, len(run.manifest.indices("train")))
    default = next(iter(epochs.values()), 0.0)
    epoch_seconds = tuple(growth * epochs.get(phase.name, default) for phase in recipe.phases)
    phase_seconds = tuple(phase.epochs * seconds for phase, seconds in zip(recipe.phases, epoch_seconds, strict=True))
    extraction = before.extraction_seconds * now / max(1, earlier)
    disk = int(before.disk_bytes * now / max(1, earlier))
    return Forecast(extraction, phase_seconds, epoch_seconds, disk, memory_bytes=before.memory_bytes)
