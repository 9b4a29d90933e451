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
        columns, weights = zip(self.scored.probabilities.T, self.scored.truth.T, strict=True), self.weights.T.copy()
        areas = [_areas(np.ascontiguousarray(scores), truth.copy(), weights) for scores, truth in columns]
        return np.stack([area[0] for area in areas], axis=1), np.stack([area[1] for area in areas], axis=1)


def ratio(part: np.ndarray, whole: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    """Elementwise quotient, `undefined` where the denominator is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), undefined, dtype=np.float64), where=whole > 0)


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Mean (R,) of values (R, C) over the classes for which they are defined; NaN where none is."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _areas(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (R,) and area under the ROC curve (R,) of scores (N,); tied scores form one threshold.

    Only at thresholds that some image of the class has, precision counts, and recall rises. So images are summed
    between these alone, which in a class with few images is much faster than at every threshold. Weights are whole
    numbers, whose sums are exact in any order.

    Args:
        scores: (N,) of the class.
        truth: (N,) bool.
        weights: (N, R), contiguous.
    """
    thresholds = np.unique(scores)[::-1]
    own = np.unique(scores[truth])[::-1]
    # 0 for scores above all of `own`, 1 for the first of them, 2 for those between the first and the second, ...
    place = np.searchsorted(-own, -scores, "left") + np.searchsorted(-own, -scores, "right")
    gained = _sums(weights[truth], place[truth], 2 * len(own) + 1)[:, 1::2]
    drawn = _sums(weights, place, 2 * len(own) + 1)
    accepted, true_positives = np.cumsum(drawn, axis=1), np.cumsum(gained, axis=1)
    positives = gained.sum(axis=1)
    negatives = accepted[:, -1] - positives
    precision = ratio(true_positives, accepted[:, 1::2], 0.0)
    # Summed over all thresholds, because rounding depends on where the zeros are.
    terms = np.zeros((len(gained), len(thresholds)))
    terms[:, np.searchsorted(-thresholds, -own)] = gained * precision
    # Every order of images that are all of the class is perfect.
    average_precision = ratio(terms.sum(axis=1), np.where(negatives > 0, positives, 0.0))
    tied, below = drawn[:, 1::2] - gained, drawn[:, 2::2]
    area = (tied * (true_positives - gained / 2) + below * true_positives).sum(axis=1)
    return average_precision, ratio(area, positives * negatives)


def _sums(weights: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Sums (R, count) of weights (N, R) by the place (N,) of each image, 0 to `count` - 1."""
    sums = np.zeros((weights.shape[1], count))
    if len(places):
        # NumPy sorts integers of 16 bits several times as fast.
        order = np.argsort(places.astype(np.int16) if count < 1 << 15 else places, kind="stable")
        ordered = places[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        sums[:, ordered[first]] = np.add.reduceat(weights[order], first, axis=0, dtype=np.float64).T
    return sums
