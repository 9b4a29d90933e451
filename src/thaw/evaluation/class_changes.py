"""How well each class is recognised before and after a change of the classifier, on the same images.

A class falls where the whole 95% interval of the difference is below 0. Each class is tested on its own: of classes
that are recognised as well as before, about one in forty is said to fall all the same, and is then looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.metrics import Estimate, Scored, paired_difference


@dataclass(frozen=True)
class ClassChange:
    """How well a class is recognised before and after an update, on the same images.

    Attributes:
        name: The class; empty for all of them together.
        images: Number of images.
        before, after: Fraction that is recognised: of the images of the class, or with several labels per image of all
            images; `before` is `None` for a class that is new.
        difference: After minus before, with its 95% interval; `None` for a class that is new.
    """

    name: str
    images: int
    before: float | None
    after: float
    difference: Estimate | None

    @property
    def falls(self) -> bool:
        """Whether the whole interval of the difference is below 0."""
        return self.difference is not None and self.difference.high < 0

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
    found = []
    for index, name in enumerate(classes):
        rows = np.ones(len(after), bool) if after.task == "multilabel" else after.truth[:, index]
        recognised = [(scored.predicted == scored.truth)[rows, index] for scored in (before, after)]
        found.append(_change(name, recognised, after.groups, rows, is_new=index >= known))
    every = np.ones(len(after), bool)
    found.append(_change("", [before.correct, after.correct], after.groups, every))
    return tuple(change for change in found if change.images)


def _change(
    name: str, recognised: Sequence[np.ndarray], groups: np.ndarray | None, rows: np.ndarray, is_new: bool = False
) -> ClassChange:
    """The change of what is recognised, before and after, on some rows."""
    before, after = recognised
    if not len(after):
        return ClassChange(name, 0, None, 0.0, None)
    if is_new:
        return ClassChange(name, len(after), None, float(after.mean()), None)
    difference = paired_difference(before, after, None if groups is None else groups[rows])
    return ClassChange(name, len(after), float(before.mean()), float(after.mean()), difference)
