"""The training images on which settings are compared, and the folds in which they are tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thaw.data.manifest import Manifest
from thaw.data.split_units import groups_of
from thaw.data.stratified import strata_of, tested_in
from thaw.formats import count
from thaw.inspection.linear_probe import FOLDS, stratified_folds, untested_images
from thaw.seeds import derive_seed

MAX_IMAGES = 1_000
MIN_GROUPS = 3
"""Groups below which an estimate across them rests on too little."""

MIN_PER_CLASS = 20
"""Images of a class that a sample keeps, where it has them, however rare it is; fewer where there are many classes."""

MANY_CLASSES = 200
"""Classes above which heads take more than a few seconds: samples and folds are then limited, and heads need time."""

_MAX_LOGITS, _MAX_LOGITS_OF_A_FOLD = 3_100_000, 20_000_000
"""Of all images, in the heads of all folds and of one: the most that 200 classes have, and 2,000 classes."""


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

    @property
    def classes(self) -> int:
        """Classes or labels that a head tells apart, up to the last one that an image has."""
        return int(self.targets.max()) + 1 if self.targets.ndim == 1 else self.targets.shape[1]

    @property
    def most_folds(self) -> int:
        """How many folds heads are fitted for at once: fewer of many classes, as their logits are many."""
        if self.classes <= MANY_CLASSES:
            return FOLDS
        return int(np.clip(_MAX_LOGITS // (len(self.rows) * self.classes), 1, FOLDS))

    def folds(self, seed: int = 0) -> np.ndarray | None:
        """(N,) int, the fold of each image: stratified, with images that must not be divided in one fold.

        An image whose class is in no other fold is in none, -1: it is only trained on; so are those of all folds but
        the first `most_folds`. `None` where fewer than two classes have two units.
        """
        folds = self._all_folds if seed == 0 else stratified_folds(self.strata, self.units, seed)
        return None if folds is None else np.where(folds < self.most_folds, folds, -1)

    @cached_property
    def _all_folds(self) -> np.ndarray | None:
        return stratified_folds(self.strata, self.units)

    @property
    def untested(self) -> Mapping[int, int]:
        """Images of each stratum that is tested in no fold, however many folds there were."""
        return {} if self._all_folds is None else untested_images(self.strata, self._all_folds)

    @property
    def why_few_folds(self) -> str:
        """Why not all folds are tested, as a sentence; empty where they are."""
        if self._all_folds is None or self._all_folds.max() < self.most_folds:
            return ""
        tested, folds = self.most_folds, self._all_folds.max() + 1
        verb = "is" if tested == 1 else "are"
        return f"{tested} of {folds} folds {verb} tested, because there are {count(self.classes, 'class', 'classes')}"

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

    Classes that are many have at least as many each as would be twice `most` in all, or one for each fold; above 2,000
    classes fewer.
    """
    classes, counts = np.unique(strata, return_counts=True)
    fewest = int(np.clip(_MAX_LOGITS_OF_A_FOLD // len(classes) ** 2, 2, FOLDS))
    least = max(fewest, min(MIN_PER_CLASS, 2 * most // len(classes)))
    wanted = np.minimum(counts, np.maximum(least, np.round(counts * most / len(strata)).astype(int)))
    parts = [
        rng.permutation(np.flatnonzero(strata == label))[:number] for label, number in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(parts))
