"""Predictions together with the true labels, the input of every metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thaw.metrics.intervals import Estimate, fraction, fractions

if TYPE_CHECKING:
    from thaw.recipe import Task


@dataclass(frozen=True)
class Scored:
    """Predictions for N images of C classes together with the true labels.

    Attributes:
        task: Multiclass, binary (two columns that sum to one) or multilabel.
        probabilities: (N, C) float in 0..1.
        truth: (N, C) bool, one true value per row unless multilabel.
        predicted: (N, C) bool, the predicted labels; one true value per row unless multilabel.
        groups: (N,) int, images with the same number are dependent; `None` where all are independent.
    """

    task: Task
    probabilities: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: the label is correct; for multilabel, all labels of the image are."""
        return np.asarray((self.truth == self.predicted).all(axis=1))

    @property
    def units(self) -> int:
        """Number of independent units: groups, or images where there are none."""
        return len(self) if self.groups is None else len(np.unique(self.groups))

    def units_of_classes(self, flags: np.ndarray) -> np.ndarray:
        """Number of independent units (C,) among the images of each column of `flags` (N, C) bool."""
        if self.groups is None:
            return np.asarray(flags.sum(axis=0))
        members = np.unique(self.groups, return_inverse=True)[1]
        return np.array([np.count_nonzero(np.bincount(members[column])) for column in flags.T])

    def fraction(self, flags: np.ndarray, where: np.ndarray | None = None) -> Estimate | None:
        """The fraction of `flags` (N,) bool that are true, among all images or those `where` (N,) bool.

        `None` if there are none.
        """
        if where is None:
            return fraction(flags, self.groups)
        return fraction(flags[where], None if self.groups is None else self.groups[where])

    def fractions(self, *flags: np.ndarray) -> list[Estimate | None]:
        """What `fraction` gives for each of `flags` (N,) bool among all images, which are drawn once for all."""
        return fractions(np.stack(flags, axis=1), self.groups)


def truth_of(targets: np.ndarray, classes: int) -> np.ndarray:
    """True labels (N, C) bool from class indices (N,) int64, or from (N, C) float 0/1 for multilabel."""
    return np.asarray(targets > 0.5 if targets.ndim > 1 else targets[:, None] == np.arange(classes))


def confidence_of(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Confidence 0..1 of each prediction and whether it is correct; for multilabel, of each label of each image."""
    if scored.task == "multilabel":
        confidence = np.where(scored.predicted, scored.probabilities, 1.0 - scored.probabilities)
        return confidence.reshape(-1), (scored.truth == scored.predicted).reshape(-1)
    return (scored.probabilities * scored.predicted).sum(axis=1), scored.correct
