"""Images that the head is uncertain about, and that differ from each other."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, zip_longest

import numpy as np

from thaw.classifier.neighbours import unit_rows
from thaw.labelling.clusters import cluster
from thaw.labelling.head import margins
from thaw.labelling.pool import Choice, Pool

CANDIDATES = 10
"""How many uncertain images there are to choose from, for each that is chosen (Zhdanov 2019, arXiv 1901.05954)."""


def choose_uncertain(pool: Pool, probabilities: np.ndarray, number: int) -> list[Choice]:
    """Those of the images with the smallest margin that are in different clusters, the smallest margin first.

    Args:
        pool: The images.
        probabilities: (N, K) of every image by the head on the labels so far.
        number: How many to choose, at most as many as have no label.
    """
    if not number:
        return []
    margin, free = margins(probabilities), pool.unlabelled
    candidates = free[np.argsort(margin[free], kind="stable")][: CANDIDATES * number]
    clusters = cluster(unit_rows(pool.values[candidates]), number, pool.seed)
    # From the smallest margin on, so that each cluster, and the order of the clusters, is by margin.
    members: defaultdict[int, list[Choice]] = defaultdict(list)
    for position, index in zip(candidates, clusters, strict=True):
        members[int(index)].append(Choice(int(position), int(index)))
    rounds = zip_longest(*members.values())
    return [choice for choice in chain.from_iterable(rounds) if choice][:number]
