"""The table of metrics: what each is called, what it means, how it is computed and what its interval rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from thaw.metrics.scored import Scored, confidence_of
from thaw.metrics.weighted import Weighted, mean_over_classes, ratio

BINS = 15
"""Equal bins of confidence in the calibration error, as Guo et al. 2017 use."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Key in recipes, JSON and CSV files.
        title: Name in tables and on pages.
        description: What it measures, in one phrase.
        compute: Values (R,), or (R, C) for a metric of each class; NaN where undefined.
        trials: Number of independent trials that the value is a fraction of, an int or one int (C,) per class; `None`
            for a metric that is no fraction of trials. It sets Wilson's interval where the bootstrap has no spread, and
            for how few groups that of the bootstrap is widened.
        is_proportion: Whether the value is successes / trials, so that Wilson's interval applies to independent images.
        kind: "fraction" for values 0..1 that are written as percentages, "loss" for values 0 and above.
        higher_is_better: Whether a higher value is better.
        per_epoch: Whether it is computed on validation after each epoch, so that it can be monitored.
    """

    name: str
    title: str
    description: str
    compute: Callable[[Weighted], np.ndarray]
    trials: Callable[[Scored], Any] | None = None
    is_proportion: bool = False
    kind: Literal["fraction", "loss"] = "fraction"
    higher_is_better: bool = True
    per_epoch: bool = False

    @property
    def highest(self) -> float:
        """The best value that there can be, where a loss is negated so that higher is better."""
        return 1.0 if self.kind == "fraction" else 0.0


def _balanced_accuracy(images: Weighted) -> np.ndarray:
    recalls = images.recall
    if images.scored.task == "multilabel":
        recalls = np.concatenate([recalls, images.specificity], axis=1)
    return mean_over_classes(recalls)


def _loss(images: Weighted) -> np.ndarray:
    scored = images.scored
    if scored.task == "multilabel":
        likelihood = np.where(scored.truth, scored.probabilities, 1.0 - scored.probabilities)
    else:
        likelihood = scored.probabilities[scored.truth][:, None]
    return images.mean(-np.log(np.clip(likelihood, 1e-12, 1.0)).mean(axis=1))


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin, 0 to `BINS` - 1, of each confidence (N,) 0..1."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def _calibration_error(images: Weighted) -> np.ndarray:
    scored = images.scored
    confidence, correct = confidence_of(scored)
    per_image = len(confidence) // max(len(scored), 1)
    gap = ((confidence - correct) / max(per_image, 1)).reshape(len(scored), -1)
    bins = bin_of(confidence).reshape(len(scored), -1)
    gaps = [np.abs(images.weights @ np.where(bins == index, gap, 0.0).sum(axis=1)) for index in range(BINS)]
    return np.asarray(np.sum(gaps, axis=0) / images.weights.sum(axis=1))


def _units_of_class(scored: Scored) -> np.ndarray:
    """Independent images (C,) of each class, or groups that have any."""
    return scored.units_of_classes(scored.truth)


def _units_of_rarest_class(scored: Scored) -> int:
    """A mean over classes is no better known than the class with the fewest images, or groups of images."""
    units = _units_of_class(scored)
    return int(units[units > 0].min(initial=scored.units))


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS = _table(
    Metric(
        "accuracy",
        "accuracy",
        "fraction of images with the correct label (multilabel: with all labels correct)",
        lambda images: images.mean(images.scored.correct),
        trials=lambda scored: scored.units,
        is_proportion=True,
        per_epoch=True,
    ),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        "mean recall over the classes (multilabel: mean of recall and specificity over the labels)",
        _balanced_accuracy,
        trials=_units_of_rarest_class,
        per_epoch=True,
    ),
    Metric(
        "macro_f1",
        "macro F1",
        "mean F1 over the classes",
        lambda images: mean_over_classes(images.f1),
        trials=_units_of_rarest_class,
        per_epoch=True,
    ),
    Metric(
        "mean_average_precision",
        "mean average precision",
        "mean over the classes of the area under the precision-recall curve",
        lambda images: mean_over_classes(images.average_precision),
        trials=_units_of_rarest_class,
        per_epoch=True,
    ),
    Metric(
        "auroc",
        "AUROC",
        "mean over the classes of the area under the ROC curve, each class against the rest",
        lambda images: mean_over_classes(images.auroc),
        trials=_units_of_rarest_class,
    ),
    Metric(
        "loss",
        "loss",
        "mean negative log-likelihood of the true labels, in nats",
        _loss,
        kind="loss",
        higher_is_better=False,
        per_epoch=True,
    ),
    Metric(
        "calibration_error",
        "calibration error",
        "mean difference between confidence and accuracy, over bins of confidence (Guo et al. 2017)",
        _calibration_error,
        higher_is_better=False,
    ),
)
"""Metrics of a whole set of images, by name."""

CLASS_METRICS = _table(
    Metric(
        "precision",
        "precision",
        "fraction of the images predicted to be of the class that are",
        lambda images: ratio(images.true_positives, images.predicted_positives),
        trials=lambda scored: scored.units_of_classes(scored.predicted),
        is_proportion=True,
    ),
    Metric(
        "recall",
        "recall",
        "fraction of the images of the class that are predicted to be",
        lambda images: images.recall,
        trials=_units_of_class,
        is_proportion=True,
    ),
    Metric(
        "f1",
        "F1",
        "harmonic mean of precision and recall",
        lambda images: images.f1,
        trials=_units_of_class,
    ),
    Metric(
        "average_precision",
        "AP",
        "area under the precision-recall curve; threshold-independent",
        lambda images: images.average_precision,
        trials=_units_of_class,
    ),
    Metric(
        "auroc",
        "AUROC",
        "area under the ROC curve against the other classes; threshold-independent",
        lambda images: images.auroc,
        trials=_units_of_class,
    ),
)
"""Metrics of each class against the rest, by name."""

MONITORS = tuple(metric.name for metric in METRICS.values() if metric.per_epoch)
"""Names of the metrics that can choose the best epoch."""


def per_epoch_metrics() -> tuple[Metric, ...]:
    """The metrics computed after each epoch, losses first, which is the order of the columns of metrics.csv."""
    metrics = [metric for metric in METRICS.values() if metric.per_epoch]
    return tuple(sorted(metrics, key=lambda metric: metric.kind != "loss"))
