"""From probabilities to labels: the most likely class, or decision thresholds or costs from a requirement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from thaw.formats import count
from thaw.recipe import Task

DEFAULT_THRESHOLD = 0.5
"""Threshold of a label of a multilabel task without a requirement."""

MANY_CLASSES = 100
"""Files of more have no tables of classes by classes, which take a hundred megabytes for two thousand: of these, only
what is not as it usually is."""


def confidences(probabilities: np.ndarray, predicted: np.ndarray, task: Task) -> np.ndarray:
    """How certain the labels of each image are, (N,) 0..1: the probability of the predicted class.

    For multilabel that of the least certain label, which may be one that is not predicted.

    Args:
        probabilities: (N, C).
        predicted: (N, C) bool, the labels.
        task: Of the classifier.
    """
    if task == "multilabel":
        return np.asarray(np.where(predicted, probabilities, 1.0 - probabilities).min(axis=1))
    return np.asarray((probabilities * predicted).sum(axis=1))


@dataclass(frozen=True)
class Decision:
    """How labels follow from the probabilities of C classes.

    By default the most likely class is chosen, and for multilabel every label at 0.5 or more.

    Attributes:
        thresholds: (class index, probability) pairs. A class is chosen at or above its threshold, the first pair taking
            precedence, and never below it, unless all classes are below theirs.
        costs: (C, C), `costs[i][j]` is the cost of predicting class j for class i; where no threshold decides, the
            class with the lowest expected cost is chosen (Elkan 2001). Not for multilabel.
        reason: The requirement behind the rule, for display.
        weight_thresholds: (class index, probability) pairs, the thresholds that class weights give labels of which
            nothing is required; multilabel only.
    """

    thresholds: tuple[tuple[int, float], ...] = ()
    costs: tuple[tuple[float, ...], ...] = ()
    reason: str = ""
    weight_thresholds: tuple[tuple[int, float], ...] = ()

    def fits(self, classes: int) -> bool:
        """Whether the thresholds and costs are for so many classes."""
        indices = {index for index, _ in (*self.thresholds, *self.weight_thresholds)}
        costs = {len(self.costs), *map(len, self.costs)}
        return indices <= {*range(classes)} and costs <= {0, classes}

    @property
    def has_many_costs(self) -> bool:
        """Whether there are costs of so many classes that files have only the unusual ones."""
        return len(self.costs) > MANY_CLASSES

    @cached_property
    def _costs(self) -> np.ndarray:
        return np.asarray(self.costs)

    @cached_property
    def _without_usual(self) -> dict[str, list[Any]]:
        return _without_usual(self._costs)

    def _expected_costs(self, probabilities: np.ndarray) -> np.ndarray:
        """Expected cost (N, C) of predicting each class, float64."""
        if not self.has_many_costs or self._without_usual["other"]:
            return np.asarray(probabilities @ self._costs)
        # What class weights cost: a product with all costs would take as long as a small network.
        missed = probabilities * np.array(self._without_usual["of_missing"])
        return np.asarray(missed.sum(axis=1, keepdims=True) - missed)

    def labels(self, probabilities: np.ndarray, task: Task) -> np.ndarray:
        """(N, C) bool, true for predicted labels; one per row unless multilabel."""
        if task == "multilabel":
            thresholds = np.full(probabilities.shape[1], DEFAULT_THRESHOLD)
            for index, threshold in reversed(self.thresholds):
                thresholds[index] = threshold
            return np.asarray(probabilities >= thresholds)
        likely = -self._expected_costs(probabilities) if self.costs else probabilities.astype(np.float64)
        scores = likely.copy()
        for rank, (index, threshold) in reversed(list(enumerate(self.thresholds))):
            above_all_others = 2.0 + len(self.thresholds) - rank
            scores[:, index] = np.where(probabilities[:, index] >= threshold, above_all_others, -np.inf)
        is_below_all = np.isneginf(scores).all(axis=1)
        scores[is_below_all] = likely[is_below_all]
        chosen = scores.argmax(axis=1)
        return np.asarray(chosen[:, None] == np.arange(probabilities.shape[1]))

    def top_labels(self, probabilities: np.ndarray, task: Task) -> np.ndarray:
        """(N,) index of the most likely predicted label, or of the most likely class if no label is predicted."""
        predicted = self.labels(probabilities, task)
        return np.asarray((probabilities + 2.0 * predicted).argmax(axis=1))

    def describe(self, task: Task) -> str:
        """The requirement behind the rule and what it replaces, for display; empty for the default rule."""
        if self == Decision():
            return ""
        default = "all labels at 0.5 or more" if task == "multilabel" else "the most likely class"
        return f"{self.reason or 'own thresholds or costs'}; labels are not always {default}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle."""
        values: dict[str, Any] = {
            "thresholds": [list(pair) for pair in self.thresholds],
            "costs": self._without_usual if self.has_many_costs else [list(row) for row in self.costs],
            "reason": self.reason,
        }
        if self.weight_thresholds:
            values["weight_thresholds"] = [list(pair) for pair in self.weight_thresholds]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None, classes: int | None = None) -> Decision:
        """Read what `to_json` returns; the default decision for `None`.

        Args:
            values: Of this or an earlier release.
            classes: How many there are, so that a file cannot ask for the memory of more; `None` to trust it.
        """
        if not values:
            return cls()
        thresholds, weight_thresholds = (
            tuple((int(index), float(threshold)) for index, threshold in pairs)
            for pairs in (values["thresholds"], values.get("weight_thresholds", ()))
        )
        found = values["costs"]
        if isinstance(found, Mapping):
            if classes is not None and classes != len(found["of_missing"]):
                raise ValueError(f"its costs are not for {count(classes, 'class', 'classes')}")
            costs = cost_matrix(found["of_missing"], found["other"])
        else:
            costs = tuple(tuple(float(cost) for cost in row) for row in found)
        return cls(thresholds, costs, str(values["reason"]), weight_thresholds)


def cost_matrix(
    of_missing: Sequence[float], other: Iterable[tuple[int, int, float]] = ()
) -> tuple[tuple[float, ...], ...]:
    """Costs (C, C) of predicting the class of the column for that of the row.

    Args:
        of_missing: (C,), what predicting any other class costs.
        other: (row, column, cost) of what costs something else.
    """
    # Rows of one object, not of one for each cost: there are millions for two thousand classes.
    rows = [[float(cost)] * len(of_missing) for cost in of_missing]
    for index, row in enumerate(rows):
        row[index] = 0.0
    for true, predicted, cost in other:
        rows[true][predicted] = float(cost)
    return tuple(map(tuple, rows))


def _without_usual(costs: np.ndarray) -> dict[str, list[Any]]:
    """Costs (C, C) as the arguments of `cost_matrix`: for each class its usual cost, and whatever differs from that."""
    classes = len(costs)
    usual = np.sort(costs[~np.eye(classes, dtype=bool)].reshape(classes, classes - 1), axis=1)[:, classes // 2]
    differ = np.argwhere(costs != np.asarray(cost_matrix(usual.tolist())))
    return {
        "of_missing": usual.tolist(),
        "other": [[int(true), int(predicted), float(costs[true, predicted])] for true, predicted in differ],
    }
