"""Pools of a few images around centres that are far apart."""

import numpy as np

from thaw.labelling.pool import UNLABELLED, Pool


def around_centres(centres: int, each: int, seed: int = 0, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Features (centres * each, 16) and the centre of each."""
    rng = np.random.default_rng(seed)
    places = np.eye(16, dtype=np.float32)[:centres] * 4
    values = np.repeat(places, each, axis=0) + rng.normal(0, spread, (centres * each, 16)).astype(np.float32)
    return values, np.repeat(np.arange(centres), each)


def pool(centres: int = 4, each: int = 12, labelled: int = 0, seed: int = 0) -> Pool:
    """A pool in random order, of which the first images have the label of their centre."""
    values, classes = around_centres(centres, each, seed)
    order = np.random.default_rng(seed).permutation(len(values))
    known = np.where(np.arange(len(values)) < labelled, classes[order], UNLABELLED)
    return Pool(values[order], known, seed)
