"""Typical or uncertain images: which are chosen is measured on the labels so far.

Uncertain images help once the head knows what it does not know. With few labels its margin says nothing about its
errors, and typical images help more. So the labelled images are predicted by heads that were fitted without them, and
if the margin is smaller for the errors than for the rest more often than not (area under the ROC curve above 0.5), the
head has learned to tell, and uncertain images are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.formats import count
from thaw.labelling.head import margins, out_of_fold
from thaw.labelling.pool import Pool
from thaw.labelling.queue import Reason

_FEWEST = 4
"""Labels below which there are no folds to measure on."""


@dataclass(frozen=True)
class Strategy:
    """Which images are chosen, and why, for the user."""

    reason: Reason
    why: str


def choose_strategy(values: np.ndarray, pool: Pool) -> Strategy:
    """Decide between typical and uncertain images.

    Args:
        values: (N, D) standardised features of the pool.
        pool: The images with the labels so far.
    """
    labelled, classes = len(pool.labelled), len(pool.present)
    if classes < 2:
        found = "no label yet" if not labelled else f"{count(labelled, 'label')} of only one class"
        return Strategy("typical", f"typical images: {found}")
    if labelled < _FEWEST:
        return Strategy("typical", f"typical images: only {count(labelled, 'label')} yet")
    probabilities = out_of_fold(values, pool)
    is_error = pool.present[probabilities.argmax(axis=1)] != pool.classes[pool.labelled]
    if not is_error.any():
        return Strategy("uncertain", f"uncertain images: the head makes no error on {count(labelled, 'label')} so far")
    if is_error.all():
        return Strategy("typical", f"typical images: the head is wrong on all {count(labelled, 'label')} so far")
    area = _separation(margins(probabilities), is_error)
    measured = f"on {count(labelled, 'label')} so far the margin of the head separates its errors"
    if area > 0.5:
        return Strategy("uncertain", f"uncertain images: {measured} (area under the ROC curve {area:.2f})")
    return Strategy("typical", f"typical images: {measured} no better than chance (area {area:.2f})")


def _separation(margin: np.ndarray, is_error: np.ndarray) -> float:
    """How often an error has a smaller margin than a correct prediction, 0..1; there are some of both."""
    errors, correct = margin[is_error], np.sort(margin[~is_error])
    above, at_least = (
        len(correct) - np.searchsorted(correct, errors, side).astype(float) for side in ("right", "left")
    )
    pairs = len(errors) * len(correct)
    return float(above.sum() / pairs + (at_least - above).sum() / pairs / 2)
