"""From probabilities to a label: the most likely one, or a rule that a wanted recall, precision or cost gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.recipe import Task

EVEN = 0.5
"""The threshold of a label of a multilabel task that nobody asked to move."""


@dataclass(frozen=True)
class Decision:
    """How a label follows from the probabilities of C classes.

    Without a rule the most likely class is chosen, and for multilabel every label at 0.5 or more.
    thresholds: (class index, probability) pairs; from that probability on the class is chosen, the first of them before
    any other class; below it another one is. costs: (C, C), `costs[i][j]` what it costs to call class i class j; the
    label with the lowest expected cost is chosen (Elkan 2001). reason: what was asked for, in words.
    """

    thresholds: tuple[tuple[int, float], ...] = ()
    costs: tuple[tuple[float, ...], ...] = ()
    reason: str = ""

    def labels(self, probabilities: np.ndarray, task: Task) -> np.ndarray:
        """(N, C) bool, true where a label is given; one a row unless multilabel."""
        if task == "multilabel":
            borders = np.full(probabilities.shape[1], EVEN)
            for index, border in self.thresholds:
                borders[index] = border
            return np.asarray(probabilities >= borders)
        scores = -(probabilities @ np.asarray(self.costs)) if self.costs else probabilities.astype(np.float64)
        for place, (index, border) in reversed(list(enumerate(self.thresholds))):
            ahead = 2.0 + len(self.thresholds) - place
            scores[:, index] = np.where(probabilities[:, index] >= border, ahead, -1.0)
        chosen = scores.argmax(axis=1)
        return np.asarray(chosen[:, None] == np.arange(probabilities.shape[1]))

    def foremost(self, probabilities: np.ndarray, task: Task) -> np.ndarray:
        """(N,) index of the most probable of the labels that are given; of all where none is."""
        given = self.labels(probabilities, task)
        return np.asarray((probabilities + 2.0 * given).argmax(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle."""
        return {
            "thresholds": [list(pair) for pair in self.thresholds],
            "costs": [list(row) for row in self.costs],
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Decision:
        """What `to_json` wrote; without anything, the most likely class."""
        if not values:
            return cls()
        thresholds = tuple((int(index), float(border)) for index, border in values["thresholds"])
        costs = tuple(tuple(float(cost) for cost in row) for row in values["costs"])
        return cls(thresholds, costs, str(values["reason"]))
