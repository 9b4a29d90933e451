"""Confusion counts of every decision threshold on validation and test, for the slider of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import DEFAULT_THRESHOLD, Decision
from thaw.evaluation.records import Records
from thaw.recipe import Task
from thaw.reports.results import Results

MAX_CLASSES, _STEPS = 40, 200


@dataclass(frozen=True)
class Counts:
    """Counts of one class on one split.

    Attributes:
        true_positives, false_positives: At each threshold.
        positives, negatives: Images of the class, and all others.
    """

    true_positives: tuple[int, ...]
    false_positives: tuple[int, ...]
    positives: int
    negatives: int


@dataclass(frozen=True)
class ThresholdCurve:
    """One class against the rest.

    Attributes:
        thresholds: Increasing, 0..1.
        splits: Counts on each split.
        in_use: Index of the threshold in use; `None` where the class has none, such as the most likely one of several.
    """

    class_name: str
    thresholds: tuple[float, ...]
    splits: Mapping[str, Counts]
    in_use: int | None


def threshold_curves(results: Results, decision: Decision, class_of_interest: int | None) -> tuple[ThresholdCurve, ...]:
    """Curves of the classes: the class of interest first, then those with a threshold; at most `MAX_CLASSES`.

    With more classes, those with the most images.
    """
    scored, with_threshold = results.record.scored, dict(decision.thresholds)
    images = scored.truth.sum(axis=0)

    def importance(index: int) -> tuple[bool, bool]:
        return index != class_of_interest, index not in with_threshold

    kept = sorted(range(len(images)), key=lambda index: (*importance(index), -images[index]))[:MAX_CLASSES]
    order = sorted(kept, key=lambda index: (*importance(index), index))
    return tuple(_curve(results, index, _threshold_in_use(decision, scored.task, index)) for index in order)


def counts_at(probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> Counts:
    """Counts at increasing thresholds for probabilities (N,) of a class and its truth (N,) bool."""
    true_positives, false_positives = (_at_least(probabilities[where], thresholds) for where in (truth, ~truth))
    return Counts(true_positives, false_positives, int(truth.sum()), int((~truth).sum()))


def _threshold_in_use(decision: Decision, task: Task, index: int) -> float | None:
    """The threshold of a class: its own, else that of each label of a multilabel task, or of the costs of two classes.

    `None` where other classes decide too.
    """
    if index in (thresholds := dict(decision.thresholds)):
        return thresholds[index]
    if task == "multilabel":
        return DEFAULT_THRESHOLD
    if task != "binary" or thresholds:
        return None
    return _threshold_of_costs(decision.costs, index) if decision.costs else DEFAULT_THRESHOLD


def _threshold_of_costs(costs: tuple[tuple[float, ...], ...], index: int) -> float | None:
    """The probability of one of two classes at which both cost the same; `None` where they always do."""
    other = 1 - index
    saved, lost = costs[index][other] - costs[index][index], costs[other][index] - costs[other][other]
    return lost / (saved + lost) if saved + lost > 0 else None


def _curve(results: Results, index: int, in_use: float | None) -> ThresholdCurve:
    thresholds = np.linspace(0.0, 1.0, _STEPS + 1)
    if in_use is not None:
        thresholds = np.union1d(thresholds, [in_use])
    return ThresholdCurve(
        class_name=results.record.classes[index],
        thresholds=tuple(thresholds.tolist()),
        splits={split: _counts(record, index, thresholds) for split, record in results.records.items()},
        in_use=None if in_use is None else int(np.flatnonzero(thresholds == in_use)[0]),
    )


def _counts(record: Records, index: int, thresholds: np.ndarray) -> Counts:
    return counts_at(record.scored.probabilities[:, index], record.scored.truth[:, index], thresholds)


def _at_least(probabilities: np.ndarray, thresholds: np.ndarray) -> tuple[int, ...]:
    """How many probabilities reach each threshold."""
    ordered = np.sort(probabilities)
    return tuple((len(ordered) - np.searchsorted(ordered, thresholds, side="left")).tolist())
