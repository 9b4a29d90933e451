"""Is one run better than another: both asked about the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw.errors import DataError
from thaw.evaluation.metrics import Estimate, Scored, difference
from thaw.evaluation.records import Records


@dataclass(frozen=True)
class Comparison:
    """The second run beside the first, on the images that both were tested on.

    left_out: images that only one of them was tested on. only_first, only_second: images that one alone gets right.
    p_value: how often chance alone tells them apart so clearly (exact McNemar test, 1947); `None` where images come in
    groups, for which the intervals of the differences, second less first, speak.
    """

    images: int
    left_out: int
    only_first: int
    only_second: int
    p_value: float | None
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    loss: Estimate

    @property
    def verdict(self) -> str:
        """In one sentence, by the interval of the accuracy."""
        better = "the second is better" if self.accuracy.value > 0 else "the first is better"
        if self.accuracy.low > 0 or self.accuracy.high < 0:
            return f"{better}, beyond what chance does in 95 of 100 cases"
        return f"no difference in accuracy that {self.images} images could tell from chance"


def compare(first: Records, second: Records) -> Comparison:
    """Compare two runs; raises `DataError` where they share no image, or do not agree what an image shows."""
    if set(first.classes) != set(second.classes) or first.scored.task != second.scored.task:
        raise DataError(
            f"the runs cannot be compared: one tells {', '.join(first.classes)} apart, the other "
            f"{', '.join(second.classes)}"
        )
    place = {path: index for index, path in enumerate(second.paths)}
    shared = [path for path in first.paths if path in place]
    if not shared:
        raise DataError("the runs cannot be compared: no image was tested by both; train them on the same data")
    mine = _rows(first, [index for index, path in enumerate(first.paths) if path in place], first.classes)
    theirs = _rows(second, [place[path] for path in shared], first.classes)
    disputed = np.flatnonzero((mine.truth != theirs.truth).any(axis=1))
    if len(disputed):
        raise DataError(f"{shared[disputed[0]]}: has another label in one run than in the other")
    theirs = replace(theirs, groups=mine.groups)
    only_first, only_second = int((mine.right & ~theirs.right).sum()), int((theirs.right & ~mine.right).sum())
    changes = difference(mine, theirs)
    return Comparison(
        images=len(shared),
        left_out=len(first.paths) + len(second.paths) - 2 * len(shared),
        only_first=only_first,
        only_second=only_second,
        p_value=_mcnemar(only_first, only_second) if mine.groups is None else None,
        accuracy=changes["accuracy"],
        balanced_accuracy=changes["balanced_accuracy"],
        macro_f1=changes["macro_f1"],
        loss=changes["loss"],
    )


def _rows(records: Records, rows: Sequence[int], classes: Sequence[str]) -> Scored:
    """Some rows, with the columns in the order of `classes`."""
    columns = [records.classes.index(name) for name in classes]
    scored = records.scored
    picked = np.ix_(rows, columns)
    groups = None if scored.groups is None else scored.groups[rows]
    return replace(
        scored,
        probabilities=scored.probabilities[picked],
        truth=scored.truth[picked],
        predicted=scored.predicted[picked],
        groups=groups,
    )


def _mcnemar(one: int, other: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(one, one + other).pvalue) if one + other else 1.0
