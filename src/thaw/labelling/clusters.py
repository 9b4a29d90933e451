"""Clusters of similar images: k-means on features of unit length."""

from __future__ import annotations

import warnings

import numpy as np

MAX_CLUSTERS = 500
"""More clusters than this become too small to have a typical image (Hacohen et al. 2022)."""

_LARGE = 10_000
"""Images from which batches of them are enough to find the clusters."""

_ITERATIONS = 50


def cluster(values: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Divide images into clusters of similar ones.

    Args:
        values: (N, D) float32, rows of unit length.
        count: How many clusters are wanted; there are fewer where fewer images differ, and at most `MAX_CLUSTERS`.
        seed: Random seed.

    Returns:
        (N,) int, the cluster of each image, numbered from the largest to the smallest.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    algorithm = KMeans if len(values) < _LARGE else MiniBatchKMeans
    clusters = algorithm(min(count, MAX_CLUSTERS, len(values)), n_init=1, max_iter=_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        # Equal images cannot be divided.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = clusters.fit_predict(values)
    _, members = np.unique(found, return_inverse=True)
    rank = np.empty(members.max() + 1, int)
    rank[np.argsort(-np.bincount(members), kind="stable")] = np.arange(len(rank))
    ranked: np.ndarray = rank[members]
    return ranked
