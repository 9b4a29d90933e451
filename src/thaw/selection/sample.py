"""The training images on which settings are compared, and the folds in which they are tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.data.manifest import Manifest
from thaw.data.split_units import groups_of
from thaw.data.stratified import strata_of, tested_in
from thaw.inspection.linear_probe import FOLDS, stratified_folds
from thaw.seeds import derive_seed

MAX_IMAGES = 1_000
MIN_GROUPS = 3
"""Groups below which an estimate across them rests on too little."""

MIN_PER_CLASS = 20
"""Images of a class that a sample keeps, where it has them, however rare it is; fewer where there are many classes."""


@dataclass(frozen=True)
class Sample:
    """Some training images.

    Attributes:
        rows: (N,) int, in the manifest, ascending.
        targets: (N,) int64, or (N, C) float32 for several labels each.
        units: (N,) int, equal for images that must not be divided: near-duplicates and images of a group.
    """

    rows: np.ndarray
    targets: np.ndarray
    units: np.ndarray

    @property
    def strata(self) -> np.ndarray:
        """(N,) int, by which folds are stratified: the class, or the rarest label plus one."""
        return strata_of(self.targets)

    def folds(self) -> np.ndarray | None:
        """(N,) int, the fold of each image: stratified, with images that must not be divided in one fold.

        An image whose class is in no other fold is in none, -1: it is only trained on. `None` where fewer than two
        classes have two units.
        """
        return stratified_folds(self.strata, self.units)

    def folds_across(self, groups: np.ndarray) -> np.ndarray | None:
        """(N,) int, the fold of each image, with the images of a group (N,) in one fold.

        An image whose class is in no other fold is in none, -1. `None` for fewer than three groups, and where every
        class is in one fold only.
        """
        number = min(FOLDS, len(np.unique(groups)))
        if number < MIN_GROUPS:
            return None
        return tested_in(self.strata, groups, number)

    def undivided(self, groups: np.ndarray) -> np.ndarray:
        """(N,) int, the groups (N,) from 0 with each unit in one of them: that of most of its images."""
        units, unit_of = np.unique(self.units, return_inverse=True)
        images = np.zeros((len(units), groups.max() + 1), int)
        np.add.at(images, (unit_of, groups), 1)
        return images.argmax(axis=1)[unit_of]

    def part(self, chosen: np.ndarray) -> Sample:
        """The images at some positions (M,) int."""
        return Sample(self.rows[chosen], self.targets[chosen], self.units[chosen])


def draw_sample(
    manifest: Manifest, duplicates: tuple[tuple[int, int], ...], seed: int, most: int = MAX_IMAGES
) -> Sample:
    """All training images, or about `most`, as `stratified_choice` takes them."""
    rows = manifest.indices("train")
    targets = manifest.targets()[rows]
    # Of all rows: two images of the sample may belong together through one that is not in it.
    units = groups_of(manifest, rows, duplicates)
    chosen = np.arange(len(rows))
    if len(rows) > most:
        chosen = stratified_choice(strata_of(targets), most, np.random.default_rng(derive_seed(seed, "sample")))
    return Sample(rows, targets, units).part(chosen)


def stratified_choice(strata: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Positions, ascending, of about `most` images: of each class the same fraction, at least `MIN_PER_CLASS`.

    Classes that are many have at least as many each as would be twice `most` in all, or one for each fold.
    """
    classes, counts = np.unique(strata, return_counts=True)
    least = max(FOLDS, min(MIN_PER_CLASS, 2 * most // len(classes)))
    wanted = np.minimum(counts, np.maximum(least, np.round(counts * most / len(strata)).astype(int)))
    parts = [
        rng.permutation(np.flatnonzero(strata == label))[:number] for label, number in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(parts))
