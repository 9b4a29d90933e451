"""Validation metrics of one set of predictions, computed by scikit-learn.

scikit-learn takes a second to import, so it is imported by the first call and not before the first image is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from thaw.recipe import Monitor, Task

Z95 = 1.959964
"""Deviations from the mean between which 95 % of a normal distribution lie."""


@dataclass(frozen=True)
class Metrics:
    """How good predictions are, each in 0..1 but the loss.

    accuracy: share of images whose label is right (multilabel: whose whole set of labels is right).
    balanced_accuracy: mean recall over the classes present (multilabel: mean over labels of the mean of recall and
    specificity).
    macro_f1: mean F1 over the classes.
    mean_average_precision: mean over the classes present of the area under precision and recall.
    loss: mean unweighted negative log-likelihood, in nats.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    mean_average_precision: float

    def by(self, monitor: Monitor) -> float:
        """The monitored value, turned so that higher is better."""
        return -self.loss if monitor == "loss" else float(getattr(self, monitor))


def measure(probabilities: np.ndarray, targets: np.ndarray, task: Task) -> Metrics:
    """Metrics of `probabilities` (N, C) float in 0..1 against targets.

    Targets are (N,) int64 class indices, or (N, C) float 0/1 for multilabel. A binary task has two columns that sum
    to one.
    """
    if task == "multilabel":
        return _measure_multilabel(probabilities, targets)
    from sklearn import metrics as sk

    predicted = probabilities.argmax(axis=1)
    chosen = probabilities[np.arange(len(targets)), targets]
    balanced = sk.recall_score(targets, predicted, labels=np.unique(targets), average="macro", zero_division=0.0)
    classes = np.arange(probabilities.shape[1])
    return Metrics(
        loss=float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean()),
        accuracy=float((predicted == targets).mean()),
        balanced_accuracy=float(balanced),
        macro_f1=float(sk.f1_score(targets, predicted, labels=classes, average="macro", zero_division=0.0)),
        mean_average_precision=_mean_average_precision(probabilities, targets[:, None] == classes),
    )


def _measure_multilabel(probabilities: np.ndarray, targets: np.ndarray) -> Metrics:
    from sklearn import metrics as sk

    truth, predicted = targets > 0.5, probabilities >= 0.5
    likelihood = np.where(truth, probabilities, 1.0 - probabilities)
    recalls = [
        (predicted[:, label] == truth[:, label])[truth[:, label] == side].mean()
        for label in range(truth.shape[1])
        for side in (False, True)
        if (truth[:, label] == side).any()
    ]
    return Metrics(
        loss=float(-np.log(np.clip(likelihood, 1e-12, 1.0)).mean()),
        accuracy=float((predicted == truth).all(axis=1).mean()),
        balanced_accuracy=float(np.mean(recalls)),
        macro_f1=float(sk.f1_score(truth, predicted, average="macro", zero_division=0.0)),
        mean_average_precision=_mean_average_precision(probabilities, truth),
    )


def _mean_average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    from sklearn import metrics as sk

    present = truth.any(axis=0)
    if not present.any():
        return 0.0
    return float(sk.average_precision_score(truth[:, present], probabilities[:, present], average="macro"))


def wilson(fraction: float, count: int) -> tuple[float, float]:
    """95 % interval of a share observed over `count` trials (Wilson 1927)."""
    centre = (fraction + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 / (1 + Z95**2 / count) * sqrt(fraction * (1 - fraction) / count + Z95**2 / (4 * count**2))
    return max(0.0, min(centre - half, fraction)), min(1.0, max(centre + half, fraction))
