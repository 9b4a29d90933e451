"""What every threshold of a class would do on validation and test, for the slider of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import DEFAULT_THRESHOLD, Decision
from thaw.evaluation.records import Records
from thaw.recipe import Task
from thaw.report.verdict import Judged

MOST_CLASSES, _STEPS = 40, 200


@dataclass(frozen=True)
class Counts:
    """Of one set: at each threshold how many images of the class and of the others are called it, and all there are."""

    found: tuple[int, ...]
    alarms: tuple[int, ...]
    images: int
    others: int


@dataclass(frozen=True)
class ThresholdCurve:
    """One class: thresholds 0..1 in order, what each does on each set, and where the one in use lies among them.

    chosen: the place of the threshold in use; `None` where the class has none, as the most likely one is given.
    """

    class_name: str
    thresholds: tuple[float, ...]
    sets: Mapping[str, Counts]
    chosen: int | None


def threshold_curves(judged: Judged, decision: Decision, first: int | None) -> tuple[ThresholdCurve, ...]:
    """A curve for each class, the one that is sought first; of many classes those with the most images."""
    scored, chosen = judged.record.scored, dict(decision.thresholds)
    images = scored.truth.sum(axis=0)
    kept = sorted(range(len(images)), key=lambda index: (index != first, index not in chosen, -images[index]))
    order = sorted(kept[:MOST_CLASSES], key=lambda index: (index != first, index not in chosen, index))
    return tuple(_curve(judged, index, _in_use(decision, scored.task, index)) for index in order)


def _in_use(decision: Decision, task: Task, index: int) -> float | None:
    """The threshold of a class; two classes decide at one half, and so does each label of a multilabel task."""
    if index in (thresholds := dict(decision.thresholds)):
        return thresholds[index]
    two_sided = task == "binary" and not decision.thresholds and not decision.costs
    return DEFAULT_THRESHOLD if task == "multilabel" or two_sided else None


def _curve(judged: Judged, index: int, in_use: float | None) -> ThresholdCurve:
    grid = np.linspace(0.0, 1.0, _STEPS + 1)
    if in_use is not None:
        grid = np.union1d(grid, [in_use])
    return ThresholdCurve(
        judged.record.classes[index],
        tuple(grid.tolist()),
        {split: _counts(records, index, grid) for split, records in judged.records.items()},
        None if in_use is None else int(np.flatnonzero(grid == in_use)[0]),
    )


def _counts(records: Records, index: int, grid: np.ndarray) -> Counts:
    return counts_at(records.scored.probabilities[:, index], records.scored.truth[:, index], grid)


def counts_at(probabilities: np.ndarray, truth: np.ndarray, grid: np.ndarray) -> Counts:
    """What each threshold of a grid does to a class: its probabilities (N,) and where it is true (N,) bool."""
    found, alarms = (_at_least(probabilities[where], grid) for where in (truth, ~truth))
    return Counts(found, alarms, int(truth.sum()), int((~truth).sum()))


def _at_least(probabilities: np.ndarray, grid: np.ndarray) -> tuple[int, ...]:
    """How many probabilities reach each threshold."""
    ordered = np.sort(probabilities)
    return tuple((len(ordered) - np.searchsorted(ordered, grid, side="left")).tolist())
