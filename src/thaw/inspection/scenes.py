"""Scenes: images with nearly the same background, lighting and camera, found in features of early stages.

Validation that draws images at random has images of every scene in training too. To estimate accuracy on parts and
scenes that training never saw, clusters of them are left out instead. Early stages see texture, brightness, sharpness
more than objects; what classes differ in is removed first, because a cluster that is a class cannot be left out.

On images of solar cells, whose numbers in a row are of one module, neighbours in number are in the same of 16 clusters
six times as often as other images (62% against 10%); on strips of steel twice as often, on single photos hardly more.
"""

from __future__ import annotations

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

MAX_CLUSTERS = 16
"""Clusters at most: on three sets, with more of them each is less of a whole scene, with fewer a class is in few."""

RECURRING = 0.83
"""`scene_distance` below which scenes recur. With means and deviations of the first four stages it is 0.60 on solar
cells of 44 modules, 0.77 on strips of steel, and 0.88 and 0.90 on two sets of photos."""

_IMAGES_PER_CLUSTER = 25
_MIN_FRACTION = 0.01
_COMPONENTS = 16
_SAMPLE = 400
_NEIGHBOURS = 5
_MIN_DEVIATION = 1e-6
_RUNS, _ITERATIONS = 5, 50


def scene_clusters(stage_features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Divide images into clusters of similar scenes, the same for the same input.

    Args:
        stage_features: (N, B) float32, pooled features of the stages before the middle of the network side by side:
            the mean of each channel, and better its standard deviation as well.
        classes: (N,) int, the class of each image; zeros where images have several.

    Returns:
        (N,) int from 0, the cluster of each image: 2 to `MAX_CLUSTERS`, each at least 1% of the images; all 0 for
        fewer than 50 images.
    """
    count = min(MAX_CLUSTERS, len(stage_features) // _IMAGES_PER_CLUSTER)
    if count < 2:
        return np.zeros(len(stage_features), np.int64)
    with threadpool_limits(1):
        components = _components(stage_features, classes)
        distinct = len(np.unique(components, axis=0))
        clusters = _clusters(components, min(count, distinct))
    return _without_small(components, clusters)


def scene_distance(stage_features: np.ndarray, classes: np.ndarray) -> float:
    """How far apart the images of a scene are, as a fraction of what it would be if no scene recurred.

    The median distance of an image to its nearest neighbours is divided by that of images with independent features.
    Below `RECURRING` clusters are scenes; near 1 they are only regions of one cloud of images.

    Args:
        stage_features: As in `scene_clusters`; of many images, some are enough.
        classes: (N,) int, the class of each image.

    Returns:
        The ratio, for `_SAMPLE` images at most because it falls with their number; 1.0 for fewer than 50 images.
    """
    if len(stage_features) < 2 * _IMAGES_PER_CLUSTER:
        return 1.0
    random = np.random.default_rng(0)
    sample = np.sort(random.permutation(len(stage_features))[:_SAMPLE])
    with threadpool_limits(1):
        components = _components(stage_features[sample], classes[sample])
    independent = np.stack([random.permutation(column) for column in components.T], axis=1)
    found, expected = (_median_distance(values) for values in (components, independent))
    return found / expected if expected > 0 else 1.0


def _median_distance(values: np.ndarray) -> float:
    """The median over images (N, D) of the mean distance to their nearest neighbours."""
    distances = np.sort(np.linalg.norm(values[:, None] - values, axis=2), axis=1)
    return float(np.median(distances[:, 1 : _NEIGHBOURS + 1].mean(axis=1)))


def _components(stage_features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(N, `_COMPONENTS`) float64, the principal components of what the classes have in common.

    Each class is standardised on its own, because images of a class that varies more would be clusters of their own.
    """
    values = stage_features.astype(np.float64)
    for label in np.unique(classes):
        values[classes == label] = _standardised(values[classes == label])
    values = _standardised(values)
    directions = np.linalg.eigh(values.T @ values)[1][:, ::-1]
    return values @ directions[:, :_COMPONENTS]


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), _MIN_DEVIATION)


def _clusters(components: np.ndarray, count: int) -> np.ndarray:
    """The best of several runs of k-means, by SciPy, which is imported in a fifth of scikit-learn's time."""
    from scipy.cluster.vq import kmeans2

    random, best, lowest = np.random.default_rng(0), np.zeros(len(components), np.int64), np.inf
    for _ in range(_RUNS):
        with warnings.catch_warnings():
            # A cluster may have lost all its images; then there is one less.
            warnings.simplefilter("ignore", UserWarning)
            centres, clusters = kmeans2(components, count, _ITERATIONS, minit="++", rng=random)
        spread = float(np.square(components - centres[clusters]).sum())
        if spread < lowest:
            best, lowest = clusters, spread
    return best


def _without_small(components: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The clusters, numbered from 0, with those of too few images merged into their nearest."""
    least = max(2.0, _MIN_FRACTION * len(clusters))
    while True:
        names, merged, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
        smallest = int(sizes.argmin())
        if sizes[smallest] >= least or len(names) <= 2:
            return merged
        centres = np.stack([components[merged == number].mean(axis=0) for number in range(len(names))])
        distances = np.linalg.norm(centres - centres[smallest], axis=1)
        distances[smallest] = np.inf
        clusters = np.where(merged == smallest, int(distances.argmin()), merged)
