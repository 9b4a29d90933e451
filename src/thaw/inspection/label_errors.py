"""Labels that are probably wrong, by confident learning on cross-validated probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.inspection.linear_probe import Features, LinearProbe


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong.

    Attributes:
        row: Its row in the manifest.
        given, suggested: Class indices of its label and of the most likely class.
        given_probability, suggested_probability: Cross-validated probabilities of the two, 0..1.
    """

    row: int
    given: int
    given_probability: float
    suggested: int
    suggested_probability: float


def find_label_errors(features: Features, probe: LinearProbe) -> tuple[LabelError, ...]:
    """Find labels that are probably wrong by confident learning (Northcutt et al. 2021), as cleanlab implements it.

    Returns:
        The label errors, the label with the lowest probability first.
    """
    from cleanlab.filter import find_label_issues

    rows, classes = features.rows[probe.tested], features.classes[probe.tested]
    # cleanlab wants labels 0..n-1 of classes that are all present.
    present, labels = np.unique(classes, return_inverse=True)
    probabilities = probe.probabilities[np.ix_(probe.tested, present)]
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True).clip(1e-12)
    order = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    suggested = probabilities.argmax(axis=1)
    return tuple(
        LabelError(
            row=int(rows[index]),
            given=int(classes[index]),
            given_probability=float(probabilities[index, labels[index]]),
            suggested=int(present[suggested[index]]),
            suggested_probability=float(probabilities[index, suggested[index]]),
        )
        for index in order
    )
