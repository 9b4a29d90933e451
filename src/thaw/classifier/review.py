"""Which images a person should look at: those without one likely class, and those unlike anything in training.

Not exactly one likely class: a conformal set, which holds the true class of the wanted share of images (Sadinle, Lei
and Wasserman 2019), and is empty where nothing fits. Unlike anything: far from the nearest training images in feature
space (Sun et al. 2022). Both borders come from validation images, and hold for images that are drawn as those were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.classifier.neighbours import nearest

NEIGHBOURS = 5
MAX_TRAIN_FEATURES = 1_000
"""Training images that a bundle remembers by their features."""


@dataclass(frozen=True)
class ReviewPolicy:
    """What the classifier knows.

    bank: (M, W) float16, pooled features of training images, each of length one. farthest: mean cosine distance to the
    nearest of them, 0..2, beyond which an image is unlike anything. least: probability from which on a class is a
    candidate, 0..1; `None` where nothing is known about that, as for multilabel, where every label is decided on its
    own. confidence and shares: mean
    confidence on validation, and the share of its images that each class was given to; what drifts departs from them.
    """

    train_features: np.ndarray
    max_distance: float
    min_probability: float | None
    confidence: float
    class_fractions: tuple[float, ...]

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mean cosine distance (N,) of pooled features (N, W) to their nearest training images."""
        return distances(features, self.train_features)

    def is_out_of_distribution(self, features: np.ndarray) -> np.ndarray:
        """(N,) bool: unlike any training image."""
        return self.exceeds_max_distance(self.distances(features))

    def exceeds_max_distance(self, distances: np.ndarray) -> np.ndarray:
        """(N,) bool: what lies so far is unlike any training image."""
        return np.asarray(distances > self.max_distance)

    def candidates(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, C) bool: the classes that an image may have: several, or none that is likely enough, leave it unsure."""
        if self.min_probability is None:
            return np.zeros(probabilities.shape, bool)
        return np.asarray(probabilities >= self.min_probability)

    def is_ambiguous(self, probabilities: np.ndarray) -> np.ndarray:
        """(N,) bool: not exactly one class is a candidate."""
        if self.min_probability is None:
            return np.zeros(len(probabilities), bool)
        return np.asarray(self.candidates(probabilities).sum(axis=1) != 1)


def distances(features: np.ndarray, train_features: np.ndarray) -> np.ndarray:
    """Mean cosine distance (N,) to the nearest rows of a bank whose rows have length one."""
    _, similarities = nearest(features, train_features, NEIGHBOURS)
    return np.asarray(1.0 - similarities.mean(axis=1))


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    values = np.asarray(features, dtype=np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
