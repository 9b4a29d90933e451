"""Training again and again on other parts of the data, so that every image is tested and luck shows.

One test split of a few hundred images moves by points from seed to seed. Under cross-validation every image is in the
test once (Stone 1974), and several seeds deal the folds anew (repeated cross-validation).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import Decision
from thaw.data.manifest import Manifest
from thaw.data.split import groups_of
from thaw.errors import DataError
from thaw.evaluation.evaluate import groups_among
from thaw.evaluation.metrics import OverallMetrics, Scored, overall, truth_of

Fit = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Train on some positions, test on others, with a seed: probabilities (N, C) of the tested ones, in their order."""


@dataclass(frozen=True)
class Repeats:
    """Figures of all images, each tested by a classifier that never saw it, for each seed; `how` they were trained."""

    how: str
    folds: int
    images: int
    by_seed: tuple[OverallMetrics, ...]

    def mean(self, name: str) -> float:
        """A figure of `OverallMetrics`, averaged over the seeds."""
        return statistics.mean(self._values(name))

    def deviation(self, name: str) -> float | None:
        """How far a figure moves from seed to seed; `None` for one seed."""
        values = self._values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, name: str) -> list[float]:
        return [getattr(item, name).value for item in self.by_seed if getattr(item, name) is not None]


def fold_rows(
    manifest: Manifest, rows: np.ndarray, duplicates: tuple[tuple[int, int], ...], folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions in `rows` to train on and to test on, for each fold; groups and near-duplicates stay together.

    Raises `DataError` for a class with fewer images, duplicates counted once, than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    targets, groups = manifest.targets()[rows], groups_of(manifest, rows, list(duplicates))
    if targets.ndim > 1:
        targets = np.where(targets.any(axis=1), targets.argmax(axis=1) + 1, 0)
    for label in np.unique(targets):
        units = len(np.unique(groups[targets == label]))
        if units < folds and manifest.task != "multilabel":
            raise DataError(f"{manifest.root}: {manifest.classes[label]} has {units} images, too few for {folds} folds")
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    yield from dealer.split(np.zeros(len(rows)), targets, groups)


def repeat(
    how: str,
    fit: Fit,
    manifest: Manifest,
    rows: np.ndarray,
    duplicates: tuple[tuple[int, int], ...],
    folds: int,
    seeds: int,
    on_progress: Callable[[int, int], None],
) -> Repeats:
    """Test every one of `rows` once for each seed, by classifiers that were trained without its fold."""
    truth, together = (
        truth_of(manifest.targets()[rows], len(manifest.classes)),
        groups_among(manifest, rows, duplicates),
    )
    found = []
    for seed in range(seeds):
        probabilities = np.zeros(truth.shape)
        for number, (train, test) in enumerate(fold_rows(manifest, rows, duplicates, folds, seed), start=1):
            probabilities[test] = fit(train, test, seed)
            on_progress(seed * folds + number, seeds * folds)
        predicted = Decision().labels(probabilities, manifest.task)
        found.append(overall(Scored(manifest.task, probabilities, truth, predicted, together)))
    return Repeats(how, folds, len(rows), tuple(found))
