"""Values of the metrics on scored images: estimates with 95% intervals, and plain values after each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thaw.metrics.intervals import (
    Estimate,
    bootstrap_draws,
    bootstrap_estimate,
    bootstrap_weights,
    difference_estimate,
    wilson,
)
from thaw.metrics.scored import Scored, truth_of
from thaw.metrics.table import CLASS_METRICS, METRICS, Metric, per_epoch_metrics
from thaw.metrics.weighted import Weighted

if TYPE_CHECKING:
    from thaw.recipe import Task

Estimates = Mapping[str, Estimate | None]
"""Estimates by the name of the metric; `None` where a metric is undefined, such as recall without images."""


@dataclass(frozen=True)
class MetricValues:
    """Values of the per-epoch metrics, by name and without intervals."""

    by_name: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.by_name[name]

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood, in nats."""
        return self["loss"]

    def by(self, monitor: str) -> float:
        """The value of a metric, negated where lower is better, so that higher is better."""
        return self[monitor] if METRICS[monitor].higher_is_better else -self[monitor]

    @classmethod
    def undefined(cls) -> MetricValues:
        """Values of an epoch without usable predictions: 0, or NaN where lower is better."""
        return cls({metric.name: 0.0 if metric.higher_is_better else math.nan for metric in per_epoch_metrics()})


def measure(probabilities: np.ndarray, targets: np.ndarray, task: Task) -> MetricValues:
    """Values of the per-epoch metrics for the most likely class, or labels of 0.5 and above for multilabel.

    Args:
        probabilities: (N, C) float in 0..1; a binary task has two columns that sum to one.
        targets: (N,) int64 class indices, or (N, C) float 0/1 for multilabel.
        task: Multiclass, binary or multilabel.
    """
    return values_of(most_likely(probabilities, targets, task))


def values_of(scored: Scored) -> MetricValues:
    """Values of the per-epoch metrics; 0 where one is undefined."""
    images = Weighted(scored, np.ones((1, len(scored))))
    values = {metric.name: float(metric.compute(images)[0]) for metric in per_epoch_metrics()}
    return MetricValues({name: 0.0 if math.isnan(value) else value for name, value in values.items()})


def most_likely(probabilities: np.ndarray, targets: np.ndarray, task: Task, groups: np.ndarray | None = None) -> Scored:
    """The most likely class as the prediction, or labels of 0.5 and above; arguments as for `measure` and `Scored`."""
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities >= 0.5 if task == "multilabel" else probabilities.argmax(axis=1)[:, None] == classes
    return Scored(task, probabilities.astype(np.float64), truth_of(targets, len(classes)), predicted, groups)


def overall(scored: Scored, metrics: Mapping[str, Metric] = METRICS, seed: int = 0) -> dict[str, Estimate | None]:
    """Estimates of the metrics of the whole set, by default of all."""
    return _overall(scored, metrics, *_values(scored, seed, metrics))


def per_class(scored: Scored, seed: int = 0) -> tuple[dict[str, Estimate | None], ...]:
    """Estimates of the metrics of each class."""
    return _per_class(scored, *_values(scored, seed, CLASS_METRICS))


def overall_and_per_class(
    scored: Scored, seed: int = 0
) -> tuple[dict[str, Estimate | None], tuple[dict[str, Estimate | None], ...]]:
    """What `overall` and `per_class` give, in half their time: on the same draws, from the same sums."""
    of_all, of_classes = _values(scored, seed, METRICS, CLASS_METRICS)
    return _overall(scored, METRICS, of_all), _per_class(scored, of_classes)


def differences(first: Scored, second: Scored, seed: int = 0) -> dict[str, Estimate]:
    """Estimates of `second` minus `first` for each metric, on the same images in the same order.

    Both are resampled together (paired bootstrap), so images that are hard for both do not widen the interval. Metrics
    that are undefined for either are omitted. Of images that are all one unit, any difference is possible.
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_first, of_second = (_compute(METRICS, Weighted(scored, weights)) for scored in (first, second))
        return {name: of_second[name] - of_first[name] for name in METRICS}

    values = _concatenate(difference(weights) for weights in _all_weights(first, seed))
    largest = {name: 1.0 if metric.kind == "fraction" else np.inf for name, metric in METRICS.items()}
    estimates = {name: difference_estimate(values[name], first.groups, len(first), largest[name]) for name in METRICS}
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}


def _all_weights(scored: Scored, seed: int) -> Iterator[np.ndarray]:
    """Weights of one (1, N), which give the value itself, then bootstrap weights (R, N) in chunks."""
    yield np.ones((1, len(scored)))
    yield from bootstrap_weights(scored.groups, len(scored), bootstrap_draws(scored.truth.size), seed)


def _values(scored: Scored, seed: int, *tables: Mapping[str, Metric]) -> list[dict[str, np.ndarray]]:
    """For each table, by metric: the value itself, then that of every draw, (1 + R,) or (1 + R, C)."""
    parts = []
    for weights in _all_weights(scored, seed):
        images = Weighted(scored, weights)
        parts.append([_compute(metrics, images) for metrics in tables])
    return [_concatenate(of_table) for of_table in zip(*parts, strict=True)]


def _overall(
    scored: Scored, metrics: Mapping[str, Metric], values: Mapping[str, np.ndarray]
) -> dict[str, Estimate | None]:
    return {
        name: _estimate(metric, scored, values[name], int(metric.trials(scored)) if metric.trials else 0)
        for name, metric in metrics.items()
    }


def _per_class(scored: Scored, values: Mapping[str, np.ndarray]) -> tuple[dict[str, Estimate | None], ...]:
    classes = scored.truth.shape[1]
    trials = {name: metric.trials(scored) if metric.trials else [0] * classes for name, metric in CLASS_METRICS.items()}
    return tuple(
        {
            name: _estimate(metric, scored, values[name][:, index], int(trials[name][index]))
            for name, metric in CLASS_METRICS.items()
        }
        for index in range(classes)
    )


def _compute(metrics: Mapping[str, Metric], images: Weighted) -> dict[str, np.ndarray]:
    return {name: metric.compute(images) for name, metric in metrics.items()}


def _concatenate(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    first, *others = parts
    return {name: np.concatenate([values, *(part[name] for part in others)]) for name, values in first.items()}


def _estimate(metric: Metric, scored: Scored, values: np.ndarray, trials: int) -> Estimate | None:
    if metric.is_proportion and trials and scored.groups is None:
        value = float(values[0])
        return Estimate(value, *wilson(value, trials))
    groups = 0 if scored.groups is None else trials or scored.units
    return bootstrap_estimate(values, trials, groups, (0.0, 1.0 if metric.kind == "fraction" else np.inf))
