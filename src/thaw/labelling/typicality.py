"""Typical images of parts of the data that have no label yet: TypiClust (Hacohen et al. 2022, arXiv 2202.02794)."""

from __future__ import annotations

import heapq

import numpy as np

from thaw.classifier.neighbours import nearest, unit_rows
from thaw.labelling.clusters import cluster
from thaw.labelling.pool import UNLABELLED, Choice, Pool

NEIGHBOURS = 20
_SMALL = 5
"""Images of a cluster below which it comes last: it is more likely to be outliers than a part of the data."""


def typicality(values: np.ndarray) -> np.ndarray:
    """How typical each image is of some: the inverse of its mean distance to its nearest neighbours among them.

    Args:
        values: (N, D) float32, rows of unit length.

    Returns:
        (N,) float, higher for more typical images.
    """
    if len(values) < 2:
        return np.ones(len(values))
    similar = nearest(values, values, min(NEIGHBOURS, len(values) - 1) + 1)[1]
    distances = np.sqrt((2 - 2 * similar[:, 1:]).clip(0))
    typical: np.ndarray = 1 / distances.mean(axis=1).clip(1e-6)
    return typical


def choose_typical(pool: Pool, number: int) -> list[Choice]:
    """The most typical image of each cluster without a label, the largest cluster first.

    There are as many clusters as images are labelled or will be. Once every cluster has a label, those with the fewest
    get another.

    Args:
        pool: The images.
        number: How many to choose, at most as many as have no label.
    """
    values = unit_rows(pool.values)
    clusters = cluster(values, len(pool.labelled) + number, pool.seed)
    is_free = pool.classes == UNLABELLED
    turns = []
    for index in range(clusters.max() + 1):
        members = np.flatnonzero(clusters == index)
        order = members[np.argsort(-typicality(values[members]), kind="stable")]
        waiting = [int(position) for position in order if is_free[position]]
        covered = len(members) - len(waiting)
        turns += [
            (covered + turn, len(members) < _SMALL, index, Choice(position, index))
            for turn, position in enumerate(waiting)
        ]
    # Clusters are numbered from the largest on.
    return [choice for *_, choice in heapq.nsmallest(number, turns, key=lambda turn: turn[:3])]
