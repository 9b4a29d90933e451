"""Which images are flagged for review: ambiguous ones, and out-of-distribution ones.

An image is ambiguous if its conformal prediction set is anything but its label; the set contains the true class for the
required fraction of images (Sadinle, Lei and Wasserman 2019), and is empty if no class fits. It is out-of-distribution
if it is far from its nearest training images in feature space (Sun et al. 2022). Both limits are calibrated on
validation images, and hold for images from the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.classifier.neighbours import nearest

NEIGHBOURS = 5
MAX_TRAIN_FEATURES = 1_000
"""Training images whose features are stored in a bundle."""


@dataclass(frozen=True)
class ReviewPolicy:
    """The limits beyond which an image is flagged, and the validation baseline that drift is measured against.

    Attributes:
        train_features: (M, W) float16, pooled features of training images, scaled to length one.
        max_distance: Mean cosine distance to the nearest training images, 0..2, above which an image is
            out-of-distribution.
        min_probability: Probability, 0..1, from which a class is a candidate; `None` for multilabel, where each label
            is decided independently.
        confidence: Mean confidence of predictions on validation. Release 0.1 took the mean over all labels of a
            multilabel task, not the least certain one of each image.
        class_fractions: Fraction of validation images that each class was predicted for.
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
        """(N,) bool for pooled features (N, W)."""
        return self.exceeds_max_distance(self.distances(features))

    def exceeds_max_distance(self, distances: np.ndarray) -> np.ndarray:
        """(N,) bool: whether images at these distances are out-of-distribution."""
        return np.asarray(distances > self.max_distance)

    def candidates(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, C) bool: the prediction set of each image."""
        if self.min_probability is None:
            return np.zeros(probabilities.shape, bool)
        return np.asarray(probabilities >= self.min_probability)

    def is_ambiguous(self, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the prediction set is anything but the predicted label, which a threshold may decide.

        Args:
            probabilities: (N, C).
            predicted: (N, C) bool, the labels.
        """
        if self.min_probability is None:
            return np.zeros(len(probabilities), bool)
        return np.asarray((self.candidates(probabilities) != predicted).any(axis=1))


def distances(features: np.ndarray, train_features: np.ndarray) -> np.ndarray:
    """Mean cosine distance (N,) of features (N, W) to their nearest rows of `train_features`."""
    _, similarities = nearest(features, train_features, NEIGHBOURS)
    return np.asarray(1.0 - similarities.mean(axis=1))
