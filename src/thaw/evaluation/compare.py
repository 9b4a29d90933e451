"""Comparison of two runs on the images that both were tested on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from thaw import formats
from thaw.errors import DataError
from thaw.evaluation.records import Records
from thaw.metrics import METRICS, Estimate, Scored, differences

_SIGNIFICANT = 0.05
"""The p-value from which a difference is none."""


@dataclass(frozen=True)
class Comparison:
    """The second run compared with the first.

    Attributes:
        images: Number of images that both were tested on.
        excluded: Number of images that only one of them was tested on.
        only_first: Images that only the first run predicts correctly.
        only_second: Images that only the second run predicts correctly.
        p_value: Of the exact McNemar test (1947); `None` where images come in groups, for which it does not hold.
        differences: Second minus first, by the name of the metric.
    """

    images: int
    excluded: int
    only_first: int
    only_second: int
    p_value: float | None
    differences: Mapping[str, Estimate]

    @property
    def verdict(self) -> str:
        """One sentence: which run is better in accuracy beyond noise, if any."""
        change, better = self.differences["accuracy"], self.better_in("accuracy")
        value, low, high = change.value, change.low, change.high
        if better is None:
            return f"No significant difference on {formats.count(self.images, 'image')}: {_points(value, low, high)}"
        if better == "first":
            return f"The first run is better: {_points(-value, -high, -low)}"
        return f"The second run is better: {_points(value, low, high)}"

    def better_in(self, metric: str) -> Literal["first", "second"] | None:
        """Which run is better in a metric, by the 95% interval of the difference; `None` where it contains 0.

        Where few images differ, the interval of the bootstrap is too narrow, so the exact test must agree. That test is
        of accuracy; of any other fraction, as many images must differ as it needs to find a difference at all.

        Args:
            metric: A key of `differences`.
        """
        change = self.differences[metric]
        if change.low <= 0 <= change.high or not self._is_possible(metric):
            return None
        return "second" if (change.value > 0) == METRICS[metric].higher_is_better else "first"

    def _is_possible(self, metric: str) -> bool:
        """Whether the exact test allows a difference in a metric."""
        if self.p_value is None or METRICS[metric].kind != "fraction":
            return True
        differ = self.only_first + self.only_second
        p_value = self.p_value if metric == "accuracy" else _mcnemar(0, differ)
        return p_value < _SIGNIFICANT


def compare(first: Records, second: Records, *, replaced: Collection[str] = ()) -> Comparison:
    """Compare two runs on the images that both were tested on.

    Images count as dependent if they are in either run.

    Args:
        first: Predictions of one run.
        second: Predictions of the other one.
        replaced: Paths at which the runs saw different files; they are excluded.

    Raises:
        DataError: If the runs have no such image, other classes, or different labels for an image.
    """
    if set(first.classes) != set(second.classes) or first.scored.task != second.scored.task:
        raise DataError(
            "the runs cannot be compared: "
            f"the first is {first.scored.task} with classes {formats.listed(first.classes)}, "
            f"the second {second.scored.task} with classes {formats.listed(second.classes)}"
        )
    row_in_second = {path: row for row, path in enumerate(second.paths)}
    common = [row for row, path in enumerate(first.paths) if path in row_in_second and path not in replaced]
    if not common and not row_in_second.keys().isdisjoint(first.paths):
        raise DataError("the runs cannot be compared: every image that both tested was replaced between them")
    if not common:
        raise DataError("the runs cannot be compared: no image was tested by both; train them on the same data")
    paths = [first.paths[row] for row in common]
    of_first = _select(first, common, first.classes)
    of_second = _select(second, [row_in_second[path] for path in paths], first.classes)
    relabelled = np.flatnonzero((of_first.truth != of_second.truth).any(axis=1))
    if len(relabelled):
        raise DataError(f"{paths[relabelled[0]]}: has a different label in each run; train both on the same labels")
    groups = _joined(of_first.groups, of_second.groups)
    of_first, of_second = (replace(scored, groups=groups) for scored in (of_first, of_second))
    only_first = int((of_first.correct & ~of_second.correct).sum())
    only_second = int((of_second.correct & ~of_first.correct).sum())
    return Comparison(
        images=len(common),
        excluded=len(first.paths) + len(second.paths) - 2 * len(common),
        only_first=only_first,
        only_second=only_second,
        p_value=_mcnemar(only_first, only_second) if groups is None else None,
        differences=differences(of_first, of_second),
    )


def _select(records: Records, rows: Sequence[int], classes: Sequence[str]) -> Scored:
    """These rows, with columns in the order of `classes`."""
    scored = records.scored
    cells = np.ix_(rows, [records.classes.index(name) for name in classes])
    return replace(
        scored,
        probabilities=scored.probabilities[cells],
        truth=scored.truth[cells],
        predicted=scored.predicted[cells],
        groups=None if scored.groups is None else scored.groups[rows],
    )


def _joined(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """Groups (N,) int in which images are together if they are so in either of two groupings."""
    if first is None or second is None:
        return second if first is None else first
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # The groups of both are the nodes, and every image connects two of them.
    (_, one), (_, other) = (np.unique(groups, return_inverse=True) for groups in (first, second))
    nodes = one.max() + other.max() + 2
    edges = coo_array((np.ones(len(one)), (one, other + one.max() + 1)), shape=(nodes, nodes))
    return np.asarray(connected_components(edges, directed=False)[1][one])


def _points(value: float, low: float, high: float) -> str:
    bounds = f"{formats.points(low)} to {formats.points(high)}"
    return f"{formats.points(value)} points accuracy (95% interval {bounds})"


def _mcnemar(only_first: int, only_second: int) -> float:
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
