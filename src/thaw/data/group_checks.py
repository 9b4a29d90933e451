"""Whether a grouping is plausible: most images have company, and every class has several groups."""

from __future__ import annotations

import numpy as np

from thaw.data.name_fields import joint_codes

MIN_GROUPS = 4
"""Groups of a class that training, validation and test need: two, one and one."""

_MIN_IMAGES = 8
_MIN_IN_COMPANY = 0.5
"""Fraction of the images that share their group with another image of their class, at least."""

_MAX_LARGEST = 0.5
"""Fraction of the images of a class that one group holds, at most."""

_MIN_IN_DIVISIBLE = 0.9
"""Fraction of the images whose class has enough groups, at least."""


def is_plausible(groups: np.ndarray, classes: np.ndarray) -> bool:
    """Whether groups may be of images of one thing each, and leave something to choose from in each class.

    Groups with one image of each class are refused, because they are more likely to be counters that start anew in each
    class (`glass12`, `metal12`).

    Args:
        groups: (N,) int from 0; -1 for an image without a group.
        classes: (N,) int from 0.
    """
    total = len(groups)
    if total < _MIN_IMAGES:
        return False
    alone = groups.max(initial=0) + 1 + np.arange(total)
    pairs = joint_codes(np.where(groups < 0, alone, groups), classes)
    _, first, inverse, images = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
    if (images[inverse] > 1).mean() < _MIN_IN_COMPANY:
        return False
    of_class = np.bincount(classes)
    groups_of_class = np.bincount(classes[first], minlength=len(of_class))
    largest = np.zeros(len(of_class), int)
    np.maximum.at(largest, classes[first], images)
    is_divisible = (groups_of_class >= MIN_GROUPS) & (largest <= _MAX_LARGEST * of_class)
    return bool(of_class[is_divisible].sum() >= _MIN_IN_DIVISIBLE * total)
