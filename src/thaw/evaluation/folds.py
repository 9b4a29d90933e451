"""Repeated cross-validation: every image is tested once per seed by a classifier that was trained without it.

A single test split of a few hundred images varies by points from seed to seed. Cross-validation tests every image
(Stone 1974), and repeating it with other folds shows how much the result depends on the division of the data.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from thaw.data.manifest import Manifest
from thaw.data.split_units import groups_of
from thaw.data.stratified import strata_of, stratified_group_folds
from thaw.errors import DataError
from thaw.evaluation.evaluate import bootstrap_groups
from thaw.formats import count
from thaw.metrics import Estimates, Scored, overall, truth_of
from thaw.progress import OnProgress


class Fold(NamedTuple):
    """Positions to train on, positions to test on, the seed of the division, and the number of the fold, from 1."""

    train: np.ndarray
    test: np.ndarray
    seed: int
    number: int


class FoldOutputs(NamedTuple):
    """Probabilities (N, C) of the positions to test on, and the predicted labels (N, C) bool."""

    probabilities: np.ndarray
    predicted: np.ndarray


FitAll = Callable[[Iterable[Fold]], Iterable[FoldOutputs]]
"""Called with folds; gives the outputs of each, in order."""


@dataclass(frozen=True)
class FoldedData:
    """The data that is divided into folds.

    Attributes:
        manifest: The data set.
        rows: (N,) int, the rows to use.
        duplicates: Pairs of rows that are near-duplicates.
        folds: Number of folds.
    """

    manifest: Manifest
    rows: np.ndarray
    duplicates: tuple[tuple[int, int], ...]
    folds: int

    def split(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each fold, positions in `rows` to train on and to test on; groups and near-duplicates stay together.

        Raises:
            DataError: A class has fewer images than there are folds, where near-duplicates, and the images of a group,
                count once.
        """
        manifest, rows = self.manifest, self.rows
        strata, groups = strata_of(manifest.targets()[rows]), groups_of(manifest, rows, list(self.duplicates))
        few = f"too few for {self.folds} folds (near-duplicates, and the images of a group, count once)"
        for label in np.unique(strata):
            images = len(np.unique(groups[strata == label]))
            if images < self.folds and manifest.task != "multilabel":
                name = manifest.classes[label]
                raise DataError(f"{manifest.root}: {name} has {count(images, 'image')}, {few}")
        if (units := len(np.unique(groups))) < self.folds:
            raise DataError(f"{manifest.root}: has {count(units, 'independent image')}, {few}")
        yield from stratified_group_folds(strata, groups, self.folds, seed)


@dataclass(frozen=True)
class CrossValidation:
    """Results of repeated cross-validation.

    Attributes:
        method: What was trained on each fold, in words.
        folds: Number of folds.
        images: Number of images.
        by_seed: For each seed, the metrics of `METRICS` over all images.
    """

    method: str
    folds: int
    images: int
    by_seed: tuple[Estimates, ...]

    def mean(self, name: str) -> float:
        """Mean of a metric over the seeds."""
        return statistics.mean(self._values(name))

    def standard_deviation(self, name: str) -> float | None:
        """Standard deviation of a metric between seeds; `None` for fewer than two."""
        values = self._values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, name: str) -> list[float]:
        return [estimate.value for item in self.by_seed if (estimate := item.get(name)) is not None]


def repeated_cross_validation(
    method: str, fit_all: FitAll, data: FoldedData, seeds: int, on_progress: OnProgress
) -> CrossValidation:
    """Test every image once per seed.

    Args:
        method: What `fit_all` trains, in words.
        fit_all: Trains and predicts every fold, each without the others.
        data: The data and its folds.
        seeds: Number of repetitions, each with other folds.
        on_progress: Called after each fold with the number of folds that are done, and of all.
    """
    manifest, rows, folds = data.manifest, data.rows, data.folds
    truth = truth_of(manifest.targets()[rows], len(manifest.classes))
    groups = bootstrap_groups(manifest, rows, data.duplicates)
    divided = [
        Fold(train, test, seed, number)
        for seed in range(seeds)
        for number, (train, test) in enumerate(data.split(seed), start=1)
    ]
    probabilities, predicted = np.zeros((seeds, *truth.shape)), np.zeros((seeds, *truth.shape), bool)
    for done, (fold, found) in enumerate(zip(divided, fit_all(divided), strict=True), start=1):
        probabilities[fold.seed, fold.test], predicted[fold.seed, fold.test] = found
        on_progress(done, seeds * folds)
    by_seed = tuple(
        overall(Scored(manifest.task, values, truth, labels, groups))
        for values, labels in zip(probabilities, predicted, strict=True)
    )
    return CrossValidation(method, folds, len(rows), by_seed)
