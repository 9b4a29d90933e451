"""The expensive levels: a trial that trains thawed stages, first for a third of its epochs, then to their end.

The second part goes on from the checkpoint of the first, so nothing is computed twice (freeze-thaw, Swersky et al.
2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.backbones import build
from thaw.data.stratified import strata_of
from thaw.metrics import paired_standard_error
from thaw.planning.draft import Material, draft_plan
from thaw.planning.measurements import PlannedRecipe
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.selection.scores import image_scores, standard_error_of
from thaw.training.context import TrainingPaused
from thaw.training.gain import kept_index
from thaw.training.history import EpochRecord, best_index
from thaw.trial import PlannedTrial, Trial, TrialContext, begin_planned, train, trial_in, with_new_head
from thaw.trial_outputs import golden_images, trial_outputs
from thaw.tuning.cheap import Measured
from thaw.tuning.levels import SHORT_FRACTION
from thaw.tuning.workbench import Workbench


@dataclass(frozen=True)
class TooLong(Exception):
    """A trial that would take longer than there is time for: the seconds that it is predicted to take."""

    seconds: float


def begin(recipe: Recipe, folder: RunFolder, bench: Workbench, seconds: float) -> Trial:
    """A trial in a folder, begun now or before; raises `TooLong` where it should take longer than `seconds`."""
    context = TrialContext(folder.path.parent, NullReporter())
    begun = folder.read_recipe() if folder.plan.is_file() else None
    backbone = build(begun or recipe)
    prepared = bench.prepared_for(backbone.facts.pixels)
    classifier = with_new_head(backbone, prepared, begun or recipe)
    if begun:
        return trial_in(folder, begun, prepared, classifier, context)
    plan = draft_plan(Material(PlannedRecipe(recipe, ()), prepared, classifier, bench.cache)).timed().plan
    if plan.forecast.seconds > seconds:
        raise TooLong(plan.forecast.seconds)
    folder.path.mkdir(parents=True, exist_ok=True)
    classifier = with_new_head(backbone, prepared, plan.recipe)
    return begin_planned(folder, recipe, PlannedTrial(plan, prepared, classifier), context)


def train_short(trial: Trial, bench: Workbench) -> Measured:
    """Train a third of the epochs of the thawed stages; the best validation metric so far."""
    phases = trial.recipe.phases
    first, planned = phases[0].name, sum(phase.epochs for phase in phases[1:])
    enough = max(1, math.ceil(SHORT_FRACTION * planned))

    def is_enough(records: Sequence[EpochRecord]) -> bool:
        return sum(record.phase != first for record in records) >= enough

    try:
        records = train(trial, NullReporter(), is_enough).records
    except TrainingPaused as paused:
        records = tuple(paused.records)
    top = _best(records, bench)
    if top is None:
        return Measured(-math.inf, 0.0, np.empty(0))
    error = paired_standard_error(top.without, [0.0] * len(top.without)) if top.without else 0.0
    return Measured(top.val.by(bench.monitor), error, np.empty(0), without=top.without)


def train_full(trial: Trial, bench: Workbench) -> Measured:
    """Train to the end; the validation metric of what is kept, and its score of each image."""
    result = train(trial, NullReporter())
    manifest, monitor = trial.prepared.manifest, bench.monitor
    trained = {record.phase for record in result.records}
    found = trial_outputs(trial, trained, golden_images(trial), NullReporter(), ("val",)).evaluated["val"]
    scores = image_scores(found.probabilities, found.targets, manifest.task, monitor)
    error = standard_error_of(scores, strata_of(found.targets), bench.val_units)
    kept = kept_index(result.records, result.gains, monitor)
    assert kept is not None
    return Measured(result.records[kept].val.by(monitor), error, scores)


def _best(records: Sequence[EpochRecord], bench: Workbench) -> EpochRecord | None:
    """The epoch with the best validation metric; `None` where none has a finite loss."""
    index = best_index(records, bench.monitor)
    return None if index is None else records[index]
