"""Sums over weighted images that several metrics share, each computed once per set of weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thaw.metrics.scored import Scored


@dataclass(frozen=True)
class Weighted:
    """Scored images under R vectors of weights.

    Weights of one give the value of a metric, bootstrap weights its distribution.

    Attributes:
        scored: N images of C classes.
        weights: (R, N), how often each image counts.
    """

    scored: Scored
    weights: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean (R,) of one value (N,) per image."""
        return (self.weights @ values / self.weights.sum(axis=1)).astype(np.float64)

    @cached_property
    def positives(self) -> np.ndarray:
        """Images that have each class, (R, C)."""
        return self.weights @ self.scored.truth

    @cached_property
    def predicted_positives(self) -> np.ndarray:
        """Images that are predicted to have each class, (R, C)."""
        return self.weights @ self.scored.predicted

    @cached_property
    def true_positives(self) -> np.ndarray:
        """Images correctly predicted to have each class, (R, C)."""
        return self.weights @ (self.scored.truth & self.scored.predicted)

    @cached_property
    def recall(self) -> np.ndarray:
        """Recall of each class, (R, C); NaN for a class without images."""
        return ratio(self.true_positives, self.positives)

    @cached_property
    def specificity(self) -> np.ndarray:
        """Specificity of each class, (R, C); NaN for a class that all images have."""
        false_positives = self.weights @ (~self.scored.truth & self.scored.predicted)
        return 1.0 - ratio(false_positives, self.weights @ ~self.scored.truth)

    @cached_property
    def f1(self) -> np.ndarray:
        """F1 of each class, (R, C); NaN for a class without images that is never predicted."""
        return ratio(2 * self.true_positives, self.positives + self.predicted_positives)

    @property
    def average_precision(self) -> np.ndarray:
        """Area under the precision-recall curve of each class, (R, C); NaN unless there are images of both."""
        return self._areas[0]

    @property
    def auroc(self) -> np.ndarray:
        """Area under the ROC curve of each class against the rest, (R, C); NaN unless there are images of both."""
        return self._areas[1]

    @cached_property
    def _areas(self) -> tuple[np.ndarray, np.ndarray]:
        classes = range(self.scored.truth.shape[1])
        areas = [_areas(self.scored.probabilities[:, c], self.scored.truth[:, c], self.weights) for c in classes]
        return np.stack([area[0] for area in areas], axis=1), np.stack([area[1] for area in areas], axis=1)


def ratio(part: np.ndarray, whole: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    """Elementwise quotient, `undefined` where the denominator is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), undefined, dtype=np.float64), where=whole > 0)


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Mean (R,) of values (R, C) over the classes for which they are defined; NaN where none is."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _areas(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (R,) and area under the ROC curve (R,) of scores (N,); tied scores form one threshold."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ordered = weights[:, order].astype(np.float64)
    true_positives = np.cumsum(ordered * truth[order], axis=1)[:, last_of_tie]
    false_positives = np.cumsum(ordered * ~truth[order], axis=1)[:, last_of_tie]
    positives, negatives = true_positives[:, -1], false_positives[:, -1]
    gained = np.diff(true_positives, axis=1, prepend=0.0)
    precision = ratio(true_positives, true_positives + false_positives, 0.0)
    # Every order of images that are all of the class is perfect.
    average_precision = ratio((gained * precision).sum(axis=1), np.where(negatives > 0, positives, 0.0))
    height = true_positives - gained / 2
    area = (np.diff(false_positives, axis=1, prepend=0.0) * height).sum(axis=1)
    return average_precision, ratio(area, positives * negatives)
