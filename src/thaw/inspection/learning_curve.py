"""The learning curve: accuracy of a linear head against the number of training images, with a forecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thaw.data.stratified import divided
from thaw.inspection.linear_probe import Features, fit_head, nothing, sample_of, stratified_folds, stratified_subset
from thaw.metrics import mean_interval

_FRACTIONS = (0.1, 0.2, 0.35, 0.55, 0.8, 1.0)
_MAX_FOLDS = 4
STEPS = len(_FRACTIONS) * _MAX_FOLDS
"""Heads that are fitted, at most."""

_FORECAST_FACTORS = (2, 4)
_RESAMPLES = 100
_EXPONENTS = np.linspace(0.1, 1.5, 29)


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy with a number of training images, 0..1, and its 95 % interval."""

    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """Measured points, and the forecast for two and four times as many images (empty without three measured sizes)."""

    measured: tuple[CurvePoint, ...]
    forecast: tuple[CurvePoint, ...]


def measure_learning_curve(
    features: Features, seed: int = 0, on_step: Callable[[], None] = nothing
) -> LearningCurve | None:
    """Measure the accuracy of a linear head on growing training sets, and extrapolate it.

    The forecast follows a - b * n^-c (Cortes et al. 1993); its interval comes from curves fitted to resampled
    measurements. Of many images, the curve is that of a sample, as `sample_of` takes it.

    Args:
        features: Features of the data set.
        seed: Random seed for the training subsets and the resampling.
        on_step: Called after each head.

    Returns:
        The curve, or `None` where fewer than two classes have two images or groups.
    """
    folds = stratified_folds(features.classes, features.groups)
    if folds is None:
        return None
    rng, pairs = np.random.default_rng(seed), divided(folds, min(int(folds.max()) + 1, _MAX_FOLDS))
    pairs = [(sample_of(features, train), test) for train, test in pairs]
    sizes: list[int] = []
    accuracies: list[list[float]] = []
    for fraction in _FRACTIONS:
        scores, counts = [], []
        for train, test in pairs:
            subset = stratified_subset(features.classes, train, fraction, rng)
            if len(np.unique(features.classes[subset])) < 2:
                continue
            head = fit_head(features.values[subset], features.classes[subset])
            scores.append(float(head.score(features.values[test], features.classes[test])))
            counts.append(len(subset))
            on_step()
        size = round(float(np.mean(counts))) if counts else 0
        # With few images of each class, several fractions are one and the same number of images.
        if scores and size not in sizes:
            sizes.append(size)
            accuracies.append(scores)
    tested = sum(len(test) for _, test in pairs)
    measured = tuple(_point(size, scores, tested) for size, scores in zip(sizes, accuracies, strict=True))
    return LearningCurve(measured, _forecast(np.array(sizes, float), accuracies, rng))


def _point(images: int, scores: list[float], tested: int) -> CurvePoint:
    """A point with the interval of a mean over folds, in which so many images are tested."""
    mean, error = float(np.mean(scores)), float(np.std(scores, ddof=1)) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return CurvePoint(images, mean, *mean_interval(mean, error, len(scores), tested))


def _forecast(sizes: np.ndarray, accuracies: list[list[float]], rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    if len(sizes) < 3:
        return ()
    targets = sizes[-1] * np.array(_FORECAST_FACTORS)
    curves = []
    for _ in range(_RESAMPLES):
        means = np.array([np.mean(rng.choice(scores, len(scores))) for scores in accuracies])
        curves.append(_extrapolate(sizes, means, targets))
    low, median, high = np.percentile(curves, [2.5, 50, 97.5], axis=0)
    return tuple(
        CurvePoint(int(images), float(accuracy), float(lower), float(upper))
        for images, accuracy, lower, upper in zip(targets, median, low, high, strict=True)
    )


def _extrapolate(sizes: np.ndarray, accuracies: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Accuracies at `targets` by the least-squares a - b * n^-c with b >= 0 and a <= 1, over a grid of exponents c."""
    least, best = np.inf, np.full(len(targets), accuracies[-1])
    for exponent in _EXPONENTS:
        powers = (sizes / sizes[-1]) ** -exponent
        slope, asymptote = np.polyfit(powers, accuracies, 1)
        if slope > 0:
            slope, asymptote = 0.0, float(accuracies.mean())
        if asymptote > 1.0:
            slope, asymptote = float(((accuracies - 1.0) * powers).sum() / (powers**2).sum()), 1.0
        error = float(((asymptote + slope * powers - accuracies) ** 2).sum())
        if error < least:
            least, best = error, asymptote + slope * (targets / sizes[-1]) ** -exponent
    return best.clip(0, 1)
