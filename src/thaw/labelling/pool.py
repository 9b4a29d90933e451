"""The images that labels are chosen among: their features, and the labels so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

UNLABELLED = -1


@dataclass(frozen=True)
class Pool:
    """N images, in an order that does not depend on their names.

    Attributes:
        values: (N, D) float32, pooled features.
        classes: (N,) int, class indices, `UNLABELLED` for images to choose from.
        seed: Random seed.
    """

    values: np.ndarray
    classes: np.ndarray
    seed: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def labelled(self) -> np.ndarray:
        """Positions of the images with a label."""
        return np.flatnonzero(self.classes != UNLABELLED)

    @property
    def unlabelled(self) -> np.ndarray:
        """Positions of the images without one."""
        return np.flatnonzero(self.classes == UNLABELLED)

    @property
    def present(self) -> np.ndarray:
        """The classes that have an image, ascending."""
        return np.unique(self.classes[self.labelled])

    def with_labels(self, positions: Sequence[int], classes: np.ndarray) -> Pool:
        """The same images, some of which now have a label."""
        changed = self.classes.copy()
        changed[list(positions)] = classes
        return replace(self, classes=changed)


@dataclass(frozen=True)
class Choice:
    """An image to label: its position in the pool, and the cluster of similar images that it was chosen from."""

    position: int
    cluster: int
