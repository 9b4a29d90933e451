"""Which trial comes next, and when a level has nothing left to gain.

Everything here is a function of the trials so far, so a search that was killed goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import erf, inf, sqrt

import numpy as np

from thaw.metrics import paired_standard_error
from thaw.run_folder.trial_record import LevelName, TrialName, TrialRecord
from thaw.selection.scores import compare
from thaw.tuning.levels import BELOW, FULL, LEVELS, SHORT, Level

NEXT_TRIALS = 10
"""Trials whose expected gain is compared with the standard error."""

MAX_SURVIVORS = 3
"""Good trials of a level that trials of the next one go on from, in turn."""

_THAWED = (SHORT.name, FULL.name)
"""Levels whose trials go on from a head."""

_IN_VAIN = 4
"""Trials in a row that repeat earlier ones, fail or would take too long, after which a level has nothing to try."""


@dataclass(frozen=True)
class Outlook:
    """What the next trials of a level promise.

    Attributes:
        gain: Expected improvement of the best value by the next `NEXT_TRIALS` trials.
        standard_error: Of the difference between the best trial and the plan; what a gain must exceed to be seen.
    """

    gain: float
    standard_error: float

    @property
    def is_settled(self) -> bool:
        """Whether the expected gain does not exceed the standard error."""
        return self.gain <= self.standard_error


@dataclass(frozen=True)
class Tried:
    """What has been tried so far.

    Attributes:
        records: All trials that have ended.
        counts: Trials of each level that were begun.
        sizes: How many trials of each level differ.
        continued: Short trials that are trained to their end, or were.
        longest: Seconds that a trial of a level may take now, where there is a limit.
    """

    records: Sequence[TrialRecord]
    counts: Mapping[LevelName, int]
    sizes: Mapping[LevelName, float]
    continued: Collection[TrialName] = ()
    longest: Mapping[LevelName, float] = field(default_factory=dict)

    def is_in_vain(self, record: TrialRecord) -> bool:
        """Whether a trial repeats an earlier one, failed, or takes too long, which it may not with more time."""
        is_too_long = record.state == "skipped" and record.predicted > self.longest.get(record.level, 0.0)
        return record.state in ("repeated", "failed") or is_too_long

    def unfinished_best(self) -> TrialRecord | None:
        """The best short trial that nobody has trained, or trains, to its end."""
        left = (record for record in ranked(self.records, SHORT.name) if record.name not in self.continued)
        return next(left, None)


def of_level(records: Sequence[TrialRecord], level: LevelName) -> list[TrialRecord]:
    """The trials of one level, by their numbers."""
    return sorted((record for record in records if record.level == level), key=lambda record: record.number)


def ranked(records: Sequence[TrialRecord], level: LevelName) -> list[TrialRecord]:
    """The usable trials of a level, the best first; of equal ones those with the better head, then the earliest."""
    usable = [record for record in of_level(records, level) if record.is_usable]
    by_name = named(records) if level in _THAWED else {}
    return sorted(usable, key=lambda record: rank(record, by_name), reverse=True)


def named(records: Sequence[TrialRecord]) -> Mapping[TrialName, TrialRecord]:
    """The trials by their names."""
    return {record.name: record for record in records}


def rank(record: TrialRecord, by_name: Mapping[TrialName, TrialRecord]) -> tuple[float, float]:
    """What trials of a level are ordered by, higher being better."""
    return record.value or 0.0, value_of_head(record, by_name)


def value_of_head(record: TrialRecord, by_name: Mapping[TrialName, TrialRecord]) -> float:
    """The cross-validated value of the head that a trial of thawed stages goes on from; below all others without one.

    It is measured on all training images, of which there are several times as many as for validation.

    Args:
        record: The trial; one of a head is its own.
        by_name: All trials, for those of thawed stages.
    """
    head = _head_of(record, by_name)
    return head.value if head and head.value is not None else -inf


def _head_of(record: TrialRecord, by_name: Mapping[TrialName, TrialRecord]) -> TrialRecord | None:
    below: TrialRecord | None = record
    while below and below.level in _THAWED:
        below = by_name.get(below.parent) if below.parent else None
    return below


def winner(records: Sequence[TrialRecord], val_units: np.ndarray, units: np.ndarray) -> TrialRecord | None:
    """The trial that a search has found; `None` where none was trained to its end.

    It is the plan, unless others are told from it by more than one standard error. Of these, validation images are too
    few for the last word: of those that they cannot tell from the best one, the one with the best head on training
    images is taken: a tie is no reason for the smaller image size.

    Args:
        records: All trials.
        val_units: (N,) int, equal for validation images that are no independent evidence.
        units: (M,) int, the same of the images of cross-validation.
    """
    good, by_name = ranked(records, FULL.name), named(records)
    plan = next((record for record in good if record.origin == "plan"), None)
    if plan:
        good = [record for record in good if _beats(record, plan, by_name, val_units, units)] or [plan]
    equal = [record for record in good if record is good[0] or not _is_worse(record, good[0], val_units)]
    return max(equal, key=lambda record: value_of_head(record, by_name), default=None)


def _beats(
    record: TrialRecord,
    plan: TrialRecord,
    by_name: Mapping[TrialName, TrialRecord],
    val_units: np.ndarray,
    units: np.ndarray,
) -> bool:
    """Whether a trial is better than the plan: on validation or, where that does not tell, by its head."""
    if _exceeds(record, plan, val_units):
        return True
    head, head_of_plan = _head_of(record, by_name), _head_of(plan, by_name)
    has_better_head = head is not None and head_of_plan is not None and _exceeds(head, head_of_plan, units)
    return has_better_head and not _exceeds(plan, record, val_units)


def best(records: Sequence[TrialRecord], level: LevelName) -> TrialRecord | None:
    """The best trial of a level; `None` where none is usable."""
    return next(iter(ranked(records, level)), None)


def survivors(records: Sequence[TrialRecord], level: LevelName, units: np.ndarray) -> list[TrialRecord]:
    """The best trials of a level that are within one standard error of the best one, the best first.

    Args:
        records: All trials.
        level: The level.
        units: (N,) int, equal for tested images that are no independent evidence.
    """
    good = ranked(records, level)[:MAX_SURVIVORS]
    return [record for record in good if record is good[0] or not _is_worse(record, good[0], units)]


def _is_worse(record: TrialRecord, top: TrialRecord, units: np.ndarray) -> bool:
    return not _are_comparable(record, top, units) or _exceeds(top, record, units)


def _exceeds(record: TrialRecord, other: TrialRecord, units: np.ndarray) -> bool:
    """Whether a trial is better than another one on the same images by more than one standard error."""
    if not _are_comparable(record, other, units):
        return False
    return compare(np.array(record.scores), np.array(other.scores), units).exceeds_noise


def _are_comparable(record: TrialRecord, other: TrialRecord, units: np.ndarray) -> bool:
    return len(record.scores) == len(other.scores) == len(units)


def parent_of(level: Level, tried: Tried, number: int, units: np.ndarray) -> TrialName | None:
    """The trial that trial `number` of a level goes on from; `None` at the lowest level, and where there is none."""
    if level.name not in BELOW:
        return None
    if level is FULL:
        found = tried.unfinished_best()
        return found.name if found else None
    good = survivors(tried.records, BELOW[level.name].name, units)
    return good[number % len(good)].name if good else None


def next_level(tried: Tried, open_: Collection[LevelName]) -> Level | None:
    """The level of the next trial: of those in `open_` the one that lags behind most, the cheapest of equal ones."""
    able = [level for level in LEVELS if level.name in open_ and not is_exhausted(level, tried)]
    return min(able, key=lambda level: tried.counts[level.name] / level.per_round, default=None)


def is_exhausted(level: Level, tried: Tried) -> bool:
    """Whether a level has nothing new to try."""
    if level is FULL:
        return tried.unfinished_best() is None
    latest = of_level(tried.records, level.name)[-_IN_VAIN:]
    in_vain = len(latest) == _IN_VAIN and all(tried.is_in_vain(record) for record in latest)
    parents = 1 if level.name not in BELOW else MAX_SURVIVORS
    return in_vain or tried.counts[level.name] >= tried.sizes[level.name] * parents


def outlook(level: Level, records: Sequence[TrialRecord], units: np.ndarray, highest: float) -> Outlook | None:
    """What the next trials of a level promise; `None` before there are enough of them.

    The values of the last trials are taken for a sample of a normal distribution, from which the next ones come too;
    the expectation is that of the largest of `NEXT_TRIALS` draws above the best value so far.

    Args:
        level: The level.
        records: All trials.
        units: (N,) int, equal for images of cross-validation that are no independent evidence.
        highest: The highest value that there can be.
    """
    usable = [record for record in of_level(records, level.name) if record.is_usable]
    if len(usable) < level.enough:
        return None
    values = np.array([record.value for record in usable[-2 * level.enough :]])
    top, first = best(records, level.name), usable[0]
    assert top is not None and top.value is not None
    error = top.standard_error or 0.0
    if _are_comparable(first, top, units) and first is not top:
        error = compare(np.array(top.scores), np.array(first.scores), units).standard_error
    elif len(first.without) == len(top.without) > 0 and first is not top:
        error = paired_standard_error(top.without, first.without)
    gain = expected_gain(float(values.mean()), float(values.std(ddof=1)), top.value)
    return Outlook(min(gain, highest - top.value), error)


def expected_gain(mean: float, deviation: float, best_value: float, draws: int = NEXT_TRIALS) -> float:
    """Expected excess over `best_value` of the largest of some draws from a normal distribution."""
    if deviation <= 0:
        return max(0.0, mean - best_value)
    grid = np.linspace(best_value, max(best_value, mean + 8 * deviation), 2001)
    below = np.array([0.5 * (1 + erf((value - mean) / (deviation * sqrt(2)))) for value in grid])
    return float(np.trapezoid(1 - below**draws, grid))
