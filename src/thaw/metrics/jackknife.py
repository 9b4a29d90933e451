"""The standard error of a difference between two classifiers on the same images: a paired, grouped jackknife.

A metric is computed without each block of images in turn; how much the difference of two classifiers changes from block
to block gives its standard error (delete-a-group jackknife: Efron and Tibshirani 1993, chapter 11). It is the same for
every metric, whether or not it is a mean over images, needs one number per block instead of every prediction, and is
right for images that come in groups, whole groups being left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thaw.metrics.scored import Scored
from thaw.metrics.table import Metric
from thaw.metrics.weighted import Weighted, mean_over_classes, ratio

MIN_BLOCKS, MAX_BLOCKS = 20, 400
"""For which the standard error is known to 16% and to 4%."""

_MAX_OPERATIONS = 4e7
_CHUNK = 4_000_000


def jackknife_blocks(scored: Scored) -> np.ndarray:
    """The block of each image, (N,) int from 0.

    Every group is a block, or every image where there are none or only one. Where there are more than `MAX_BLOCKS`, or
    than stay fast, each block has several, drawn at random but always the same.
    """
    names = np.arange(len(scored)) if scored.groups is None or scored.units == 1 else scored.groups
    _, first, members = np.unique(names, return_index=True, return_inverse=True)
    # By their first image, not by their number, which says nothing.
    unit_of = np.argsort(np.argsort(first))[members]
    units = len(first)
    blocks = min(units, int(np.clip(_MAX_OPERATIONS / scored.truth.size, MIN_BLOCKS, MAX_BLOCKS)))
    return np.asarray(np.random.default_rng(0).permutation(units)[unit_of] % blocks)


def values_without_each(scored: Scored, metric: Metric) -> tuple[float, ...]:
    """The value of a metric of the whole set without each of its `jackknife_blocks`; 0 where undefined."""
    blocks = jackknife_blocks(scored)
    numbers = np.arange(blocks.max() + 1)
    chunks = np.array_split(numbers, -(-len(numbers) * len(blocks) // _CHUNK))
    values = [metric.compute(Weighted(scored, (blocks != some[:, None]).astype(np.float64))) for some in chunks]
    return tuple(np.nan_to_num(np.concatenate(values), nan=0.0).tolist())


def influence_scores(scored: Scored, metric: Metric) -> np.ndarray:
    """Scores (N,) of images whose mean is a metric that is no mean over images, such as mean average precision.

    The value, and what each image moves it: the pseudo-values of the jackknife (Efron and Tibshirani 1993, section
    11.5), centred, so that the standard error of their mean is that of the metric. An image without which
    the metric is undefined moves nothing.
    """
    images = len(scored)
    whole = metric.compute(Weighted(scored, np.ones((1, images))))[0]
    value = float(np.nan_to_num(whole, nan=0.0))
    moved = value - np.nan_to_num(_without_each_image(scored, metric), nan=value)
    return np.asarray(value + (images - 1) * (moved - moved.mean()))


def _without_each_image(scored: Scored, metric: Metric) -> np.ndarray:
    """The value of a metric (N,) without each image; NaN where undefined."""
    if metric.name == "mean_average_precision":
        columns = zip(scored.probabilities.T, scored.truth.T, strict=True)
        return mean_over_classes(np.stack([_average_precision_without_each(*column) for column in columns], axis=1))
    images = np.arange(len(scored))
    chunks = np.array_split(images, -(-(len(images) ** 2) // _CHUNK))
    return np.concatenate(
        [metric.compute(Weighted(scored, (images != some[:, None]).astype(float))) for some in chunks]
    )


def _average_precision_without_each(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision (N,) of scores (N,) without each image, in N log N steps; tied scores form one threshold.

    Thresholds above the image stay as they are. At its own and those below, it is missing among the images that are
    accepted, and, if it is positive, among the correct ones.
    """
    _, of_threshold, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    gained = np.bincount(of_threshold, weights=truth, minlength=len(sizes))
    accepted, correct, positives = np.cumsum(sizes), np.cumsum(gained), float(truth.sum())
    above = np.cumsum(gained * correct / accepted) - gained * correct / accepted
    found = np.empty(len(scores))
    for is_positive in (False, True):
        own, lost = truth == is_positive, float(is_positive)
        precision = ratio(correct - lost, accepted - 1.0, 0.0)
        below = np.cumsum((gained * precision)[::-1])[::-1] - gained * precision
        at = of_threshold[own]
        sums = above[at] + (gained[at] - lost) * precision[at] + below[at]
        has_others = len(scores) - positives > 1.0 - lost
        found[own] = ratio(sums, np.full(len(at), positives - lost if has_others else 0.0))
    return found


def paired_standard_error(first: Sequence[float], second: Sequence[float]) -> float:
    """Standard error of the difference between two classifiers, from their values without each block of images."""
    differences = np.subtract(first, second)
    blocks = len(differences)
    return math.sqrt((blocks - 1) / blocks * np.square(differences - differences.mean()).sum())
