"""Folds across the groups of the data, or across scenes that features tell apart."""

from __future__ import annotations

import numpy as np

from thaw.data.prepare import Prepared
from thaw.inspection.scenes import RECURRING, scene_clusters, scene_distance
from thaw.selection.estimates import Folding
from thaw.selection.sample import Sample

_EARLY = 0.5
"""Fraction of the stages, from the pixels up, whose features tell scenes apart: light, background, camera."""


def across_groups(prepared: Prepared, sample: Sample, plain: np.ndarray, widths: tuple[int, ...]) -> Folding | None:
    """Folds across the groups of the data, or across scenes found in the features of early stages.

    Near-duplicates stay in one fold, also those of different groups or scenes. `None` where there are none, or so many
    classes that heads are fitted for one fold at a time, which would hold few groups.
    """
    if sample.most_folds == 1:
        return None
    names = prepared.manifest.column("group")
    if any(names[row] for row in sample.rows):
        groups, grouping, is_guess = sample.units, "groups", False
    elif len(widths) > 1:
        early = sum(widths[: max(1, round(_EARLY * len(widths)))])
        if scene_distance(plain[:, :early], sample.strata) > RECURRING:
            return None
        groups = sample.undivided(scene_clusters(plain[:, :early], sample.strata))
        grouping, is_guess = "clusters of similar scenes", True
    else:
        return None
    numbers = sample.folds_across(groups)
    return None if numbers is None else Folding(numbers, groups, grouping, is_guess)
