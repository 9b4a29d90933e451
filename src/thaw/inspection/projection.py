"""A map of the data set: features projected to two dimensions, similar images close together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.inspection.linear_probe import Features

_MAX_POINTS = 3000
_PCA_COMPONENTS = 50
_PERPLEXITY = 30
_MIN_SPREAD = 1e-6
"""Standard deviation of the features over their root mean square, below which they differ by rounding alone. Without
any spread the start of t-SNE would be NaN, at which scikit-learn crashes."""


@dataclass(frozen=True)
class MapPoint:
    """Position of an image on the map, 0..1 from the top left; `row` is its row in the manifest."""

    row: int
    x: float
    y: float


def project(features: Features, seed: int = 0) -> tuple[MapPoint, ...]:
    """Project features to two dimensions by PCA and t-SNE; a random sample of large sets.

    Args:
        features: Features of the data set.
        seed: Random seed for the sample and the projection.

    Returns:
        The positions, or nothing where the features of all images are the same.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    chosen = np.arange(len(features))
    if len(chosen) > _MAX_POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MAX_POINTS, replace=False))
    if len(chosen) < 5:
        positions = np.full((len(chosen), 2), 0.5)
    else:
        values = features.values[chosen]
        if not _has_spread(values.astype(np.float64)):
            return ()
        reduced = PCA(min(_PCA_COMPONENTS, *values.shape), random_state=seed).fit_transform(values)
        perplexity = min(_PERPLEXITY, (len(chosen) - 1) / 3)
        positions = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
        low, high = positions.min(axis=0), positions.max(axis=0)
        positions = (positions - low) / np.maximum(high - low, 1e-9)
    return tuple(
        MapPoint(int(row), float(x), float(y)) for row, (x, y) in zip(features.rows[chosen], positions, strict=True)
    )


def _has_spread(values: np.ndarray) -> bool:
    return bool(values.std(axis=0).max() > _MIN_SPREAD * np.sqrt(np.square(values).mean()))
