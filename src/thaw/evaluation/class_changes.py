"""How well each class is recognised before and after a change of the classifier, on the same images.

A class falls where so many of its images are lost, and so few gained, as chance alone would give in less than one case
of twenty: the exact test of McNemar (1947), one-sided, over groups where images come in groups. The bootstrap interval
that is shown with a difference has no width where all of few images change in the same way. Each class is tested on
its own, so of many that are recognised as well as before, one in twenty is said to fall at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.metrics import Estimate, Scored, paired_difference, paired_differences

SIGNIFICANCE = 0.05
"""Probability that chance gives such a fall, below which it counts."""


@dataclass(frozen=True)
class ClassChange:
    """How well a class is recognised before and after an update, on the same images.

    Attributes:
        name: The class; empty for all of them together.
        images: Number of images.
        before, after: Fraction that is recognised: of the images of the class, or with several labels per image of all
            images; `before` is `None` for a class that is new.
        difference: After minus before, with its 95% interval; `None` for a class that is new.
        p_value: Of the exact test that nothing is lost; `None` for a class that is new.
    """

    name: str
    images: int
    before: float | None
    after: float
    difference: Estimate | None = None
    p_value: float | None = None

    @property
    def falls(self) -> bool:
        """Whether the class is recognised less well, beyond noise."""
        return self.p_value is not None and self.p_value < SIGNIFICANCE

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClassChange:
        """What `asdict` gave."""
        difference = values["difference"]
        return cls(**{**values, "difference": Estimate(**difference) if difference else None})


def class_changes(before: Scored, after: Scored, classes: Sequence[str], known: int) -> tuple[ClassChange, ...]:
    """The change of each class with images, and of all together at the end.

    Args:
        before: Predictions before the change; the columns of classes that it did not know are false.
        after: Predictions after it, for the same images in the same order.
        classes: Names of the columns.
        known: How many of the classes, the first ones, were known before.
    """
    first, second = recognised = [scored.predicted == scored.truth for scored in (before, after)]
    every = np.ones(len(after), bool)
    # Each label is one of all images, which are drawn once for all labels.
    of_labels = paired_differences(first, second, after.groups) if after.task == "multilabel" else []
    found = []
    for index, name in enumerate(classes):
        rows = every if of_labels else after.truth[:, index]
        own = [flags[rows, index] for flags in recognised]
        difference = of_labels[index] if of_labels else None
        found.append(_change(name, own, after.groups, rows, difference, is_new=index >= known))
    found.append(_change("", [before.correct, after.correct], after.groups, every))
    return tuple(change for change in found if change.images)


def _change(
    name: str,
    recognised: Sequence[np.ndarray],
    groups: np.ndarray | None,
    rows: np.ndarray,
    difference: Estimate | None = None,
    is_new: bool = False,
) -> ClassChange:
    """The change of what is recognised, before and after, on some rows, and its difference where that is known."""
    before, after = recognised
    if not len(after):
        return ClassChange(name, 0, None, 0.0)
    if is_new:
        return ClassChange(name, len(after), None, float(after.mean()))
    own = None if groups is None else groups[rows]
    difference, p_value = difference or paired_difference(before, after, own), _probability_of_fall(before, after, own)
    return ClassChange(name, len(after), float(before.mean()), float(after.mean()), difference, p_value)


def _probability_of_fall(before: np.ndarray, after: np.ndarray, groups: np.ndarray | None) -> float:
    """The probability that chance loses as many images, or groups, of those that change."""
    from scipy.stats import binomtest

    change = after.astype(int) - before
    if groups is not None:
        change = np.bincount(np.unique(groups, return_inverse=True)[1], weights=change)
    lost, changed = int((change < 0).sum()), int((change != 0).sum())
    return float(binomtest(lost, changed, alternative="greater").pvalue) if changed else 1.0
