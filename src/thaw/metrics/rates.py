"""How well classes are detected: recall, false-positive rate and precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.metrics.intervals import MANY_IMAGES, Estimate, bootstrap_draws, bootstrap_estimate, bootstrap_weights
from thaw.metrics.scored import Scored
from thaw.metrics.weighted import ratio

MANY_CLASSES = 200
"""Of more, all are drawn together."""


@dataclass(frozen=True)
class ClassRates:
    """How well one class is detected; `None` where undefined, such as the recall of a class without images."""

    recall: Estimate | None
    false_positive_rate: Estimate | None
    precision: Estimate | None


def rates_of_class(scored: Scored, index: int) -> ClassRates:
    """Recall, false-positive rate and precision of the class with this index."""
    truth, predicted = scored.truth[:, index], scored.predicted[:, index]
    return ClassRates(
        recall=scored.fraction(predicted, truth),
        false_positive_rate=scored.fraction(predicted, ~truth),
        precision=scored.fraction(truth, predicted),
    )


def rates_of_classes(scored: Scored, indices: Sequence[int]) -> tuple[ClassRates, ...]:
    """The rates of each of these classes.

    Where images come in groups, those of each rate of each class are drawn on their own, as by `rates_of_class`. Of
    more than `MANY_IMAGES` images or `MANY_CLASSES` classes that takes minutes, and all images are drawn, as often, for
    all rates at once.
    """
    is_small = len(scored) <= MANY_IMAGES and len(indices) <= MANY_CLASSES
    if scored.groups is None or is_small:
        return tuple(rates_of_class(scored, index) for index in indices)
    truth, predicted = scored.truth[:, indices], scored.predicted[:, indices]
    draws = bootstrap_weights(scored.groups, len(scored), bootstrap_draws(len(scored)), seed=0)
    parts = [_rates(truth, predicted, weights) for weights in (np.ones((1, len(scored))), *draws)]
    rates = [np.concatenate(values) for values in zip(*parts, strict=True)]
    units = [scored.units_of_classes(flags) for flags in (truth, ~truth, predicted)]
    return tuple(
        ClassRates(
            *(
                bootstrap_estimate(values[:, place], int(count[place]), int(count[place]), (0.0, 1.0))
                for values, count in zip(rates, units, strict=True)
            )
        )
        for place in range(len(indices))
    )


def _rates(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Recall, false-positive rate and precision (R, C) of images with flags (N, C) and weights (R, N)."""
    positives, found, hits = (weights @ flags for flags in (truth, predicted, truth & predicted))
    negatives = weights.sum(axis=1, keepdims=True) - positives
    return [ratio(hits, positives), ratio(found - hits, negatives), ratio(hits, found)]
