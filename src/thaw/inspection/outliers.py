"""Outliers: images far from all others of their class in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.inspection.linear_probe import Features

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


def find_outliers(features: Features) -> tuple[Outlier, ...]:
    """Find images far from their nearest neighbours of the same class: foreign objects, or label errors.

    The score is the robust z-score, within the class, of the logarithm of the mean cosine distance to the ten nearest
    neighbours; classes with fewer than twenty images are left out, and those that are mostly copies of one image.

    Returns:
        The outliers, the farthest first.
    """
    from sklearn.neighbors import NearestNeighbors

    scores, ratios = np.zeros(len(features)), np.zeros(len(features))
    for label in np.unique(features.classes):
        members = np.flatnonzero(features.classes == label)
        if len(members) < 2 * _NEIGHBOURS:
            continue
        values = features.values[members]
        nearest = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1, metric="cosine").fit(values)
        # The first neighbour of every image is the image itself.
        distances = nearest.kneighbors(values)[0][:, 1:].mean(axis=1).clip(_MIN_DISTANCE)
        if np.median(distances) <= _MIN_DISTANCE:
            continue
        scores[members], ratios[members] = robust_z_scores(np.log(distances)), distances / np.median(distances)
    order = np.argsort(-scores)
    return tuple(Outlier(int(features.rows[i]), float(ratios[i])) for i in order if scores[i] > _MIN_Z_SCORE)


def robust_z_scores(values: np.ndarray) -> np.ndarray:
    """Distance of each value (N,) from the median, in units of 1.4826 times the median absolute deviation."""
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    scores: np.ndarray = (values - median) / max(float(deviation), 1e-6)
    return scores
