"""What a setting is judged by: a score of each image whose mean is the monitored metric, and paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.metrics import METRICS, influence_scores, most_likely
from thaw.recipe import Monitor, Task
from thaw.training.gain import exceeds

_MEANS = ("accuracy", "balanced_accuracy", "loss")
"""Monitored metrics that are means over images."""


@dataclass(frozen=True)
class Gain:
    """The mean difference of two settings on the same images, in the monitored metric, and its standard error."""

    value: float
    standard_error: float

    @property
    def exceeds_noise(self) -> bool:
        """Whether it is above one standard error; a single image that differs is not."""
        return exceeds(self.value, self.standard_error)


def image_scores(probabilities: np.ndarray, targets: np.ndarray, task: Task, monitor: Monitor) -> np.ndarray:
    """Scores (N,) of images whose mean is the monitored metric, higher being better.

    `accuracy` and `loss`, negated, are means over images. Balanced accuracy is one too when each image counts by the
    rarity of its class. Of the others, an image's score is what it moves the metric.

    Args:
        probabilities: (N, C).
        targets: (N,) int64, or (N, C) of 0 and 1 for several labels each.
        task: The task.
        monitor: Name of the metric.
    """
    if monitor not in _MEANS:
        return influence_scores(most_likely(probabilities, targets, task), METRICS[monitor])
    if task == "multilabel":
        truth = targets > 0.5
        if monitor == "loss":
            likelihood = np.where(truth, probabilities, 1.0 - probabilities)
            return np.asarray(np.log(likelihood.clip(1e-12)).mean(axis=1))
        correct = (probabilities >= 0.5) == truth
        if monitor == "accuracy":
            return correct.all(axis=1).astype(float)
        positives = truth.mean(axis=0)
        weights = np.where(truth, 0.5 / positives.clip(1e-12), 0.5 / (1.0 - positives).clip(1e-12))
        return np.asarray((correct * weights).mean(axis=1))
    own = probabilities[np.arange(len(targets)), targets]
    if monitor == "loss":
        return np.asarray(np.log(own.clip(1e-12)))
    correct = (probabilities.argmax(axis=1) == targets).astype(float)
    if monitor == "accuracy":
        return correct
    counts = np.bincount(targets)
    return np.asarray(correct * (len(targets) / ((counts > 0).sum() * counts[targets])))


def compare(scores: np.ndarray, reference: np.ndarray, groups: np.ndarray) -> Gain:
    """The gain of scores (N,) over a reference on the same images.

    Images of one group are no independent evidence: the standard error is that of sums over groups (N,) int (Liang and
    Zeger 1986).
    """
    return mean_of(scores - reference, groups)


def standard_error_of(scores: np.ndarray, strata: np.ndarray, groups: np.ndarray) -> float:
    """The standard error of the mean of image scores (N,), by groups (N,) of images that are no independent evidence.

    Images of a class (N,) differ from its mean: that images of rare classes have larger scores is no noise.
    """
    return mean_of(within_classes(scores, strata), groups).standard_error


def within_classes(scores: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """How far the score (N,) of each image is from the mean of its class (N,)."""
    _, index = np.unique(strata, return_inverse=True)
    means = np.bincount(index, weights=scores) / np.bincount(index)
    return np.asarray(scores - means[index])


def mean_of(values: np.ndarray, groups: np.ndarray) -> Gain:
    """The mean of values (N,) and its standard error by groups (N,)."""
    mean = float(values.mean())
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    count = len(sums)
    correction = count / max(count - 1, 1)
    return Gain(mean, float(np.sqrt(correction * np.square(sums).sum()) / len(values)))
