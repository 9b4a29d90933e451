"""Outliers: images far from all others of their class in feature space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thaw.inspection.linear_probe import MOST_IMAGES, Features, nothing

_NEIGHBOURS = 10
_MIN_DISTANCE = 1e-6
"""Below the rounding of cosine distances in fp32."""

_MIN_Z_SCORE = 2.5
"""Ten foreign images among solar cells or steel, under random labels, came first or nearly so (average precision 0.79
to 1.0); among photographs of waste, which vary as much as the foreign images, they did not (0.14 to 0.35)."""


@dataclass(frozen=True)
class Outlier:
    """An image far from its class.

    Attributes:
        row: Its row in the manifest.
        distance_ratio: Mean distance to its nearest neighbours in the class, divided by the median of the class.
    """

    row: int
    distance_ratio: float


def find_outliers(features: Features, on_step: Callable[[], None] = nothing) -> tuple[Outlier, ...]:
    """Find images far from their nearest neighbours of the same class: foreign objects, or label errors.

    The score is the robust z-score, within the class, of the logarithm of the mean cosine distance to the ten nearest
    neighbours; classes with fewer than twenty images are left out, and those that are mostly copies of one image.
    Neighbours in a class with more than `MOST_IMAGES` images are sought among as many of them.

    Args:
        features: Features of the data set.
        on_step: Called after each class.

    Returns:
        The outliers, the farthest first.
    """
    scores, ratios = np.zeros(len(features)), np.zeros(len(features))
    for label in np.unique(features.classes):
        members = np.flatnonzero(features.classes == label)
        if len(members) >= 2 * _NEIGHBOURS:
            distances = _distances(features.values[members])
            if np.median(distances) > _MIN_DISTANCE:
                scores[members] = robust_z_scores(np.log(distances))
                ratios[members] = distances / np.median(distances)
        on_step()
    order = np.argsort(-scores)
    return tuple(Outlier(int(features.rows[i]), float(ratios[i])) for i in order if scores[i] > _MIN_Z_SCORE)


def _distances(values: np.ndarray) -> np.ndarray:
    """Mean cosine distance (N,) of the images of a class to their nearest neighbours among them, or a sample."""
    from sklearn.neighbors import NearestNeighbors

    sought = np.arange(len(values))
    if len(values) > MOST_IMAGES:
        sought = np.sort(np.random.default_rng(0).choice(sought, MOST_IMAGES, replace=False))
    nearest = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1, metric="cosine").fit(values[sought])
    distances = nearest.kneighbors(values)[0]
    # The first neighbour of every image that is sought among is the image itself.
    means = distances[:, :-1].mean(axis=1)
    means[sought] = distances[sought][:, 1:].mean(axis=1)
    return means.clip(_MIN_DISTANCE)


def robust_z_scores(values: np.ndarray) -> np.ndarray:
    """Distance of each value (N,) from the median, in units of 1.4826 times the median absolute deviation."""
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    scores: np.ndarray = (values - median) / max(float(deviation), 1e-6)
    return scores
