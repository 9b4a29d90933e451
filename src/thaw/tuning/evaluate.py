"""What one trial measures, at the level that it is of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thaw.errors import BackboneError, RecipeError, TrainingError, first_line
from thaw.formats import duration
from thaw.recipe import Recipe
from thaw.run_folder.trial_record import TrialRecord
from thaw.tuning import thawed
from thaw.tuning.cheap import Measured, head, probe
from thaw.tuning.levels import FULL, HEAD, PROBE, SHORT
from thaw.tuning.recipes import recipe_of, relevant
from thaw.tuning.schedule import of_level
from thaw.tuning.state import Search
from thaw.tuning.studies import Asked


def evaluated(search: Search, asked: Asked) -> TrialRecord:
    """What a trial measures, or why it could not be evaluated."""
    parent = search.record(asked.parent)
    settings = relevant({**(parent.settings if parent else {}), **asked.settings})
    empty = TrialRecord(asked.name.level, asked.name.number, asked.origin, settings, "complete", asked.parent)
    for earlier in of_level(search.records(), asked.name.level):
        if earlier.settings == settings and earlier.is_usable and asked.name.level != FULL.name:
            return replace(empty, state="repeated", value=earlier.value, reason=f"has the settings of {earlier.name}")
    try:
        recipe = _recipe_of(search, asked, settings)
        found = _measured(search, asked, recipe)
    except thawed.TooLong as error:
        return replace(
            empty, state="skipped", reason=f"would take about {duration(error.seconds)}", predicted=error.seconds
        )
    except (BackboneError, TrainingError, RecipeError) as error:
        return replace(empty, state="failed", reason=first_line(error))
    if found.value == -math.inf:
        return replace(empty, state="failed", reason="no epoch gave a finite loss")
    return replace(
        empty,
        state="pruned" if found.is_pruned else "complete",
        value=found.value,
        standard_error=found.standard_error,
        latency_ms=found.latency_ms if found.latency_ms is not None else (parent.latency_ms if parent else None),
        by_fold=found.by_fold,
        scores=tuple(float(score) for score in found.scores),
        without=found.without,
        reason="worse than the best trial in these folds (Wilcoxon test)" if found.is_pruned else "",
    )


def _recipe_of(search: Search, asked: Asked, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial; that of the plan is the plan's own, with all of its phases."""
    if asked.origin == "plan" and asked.name.level in (SHORT.name, FULL.name):
        return search.planned
    return recipe_of(search.file.base, settings, search.bench.weights)


def _measured(search: Search, asked: Asked, recipe: Recipe) -> Measured:
    bench, level = search.bench, asked.name.level
    if level == PROBE.name:
        return probe(recipe, bench)
    if level == HEAD.name:
        study = search.studies[HEAD.name]
        return head(recipe, bench, lambda fold, value: study.report(asked.name.number, fold, value))
    if level == SHORT.name:
        # Whether there is time for the plan was asked before the search began.
        may_take = math.inf if asked.origin == "plan" else search.tried().longest[SHORT.name]
        return thawed.train_short(thawed.begin(recipe, search.folder.trial(asked.name), bench, may_take), bench)
    assert asked.parent is not None
    begun = search.record(asked.parent)
    assert begun is not None
    if asked.origin != "plan" and (needed := search.seconds_to_end(begun)) > search.tried().longest[FULL.name]:
        raise thawed.TooLong(needed)
    return thawed.train_full(thawed.begin(recipe, search.folder.trial(asked.parent), bench, math.inf), bench)
