"""The images to label next, and what a head on the labels so far says about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.classifier.neighbours import nearest
from thaw.inspection.linear_probe import one_thread
from thaw.labelling.candidates import find_candidates
from thaw.labelling.head import fit_head, standardised
from thaw.labelling.order import Order, order_images
from thaw.labelling.outlook import Outlook, look_ahead
from thaw.labelling.pool import UNLABELLED, Pool
from thaw.studio.features import ImageFeatures
from thaw.studio.marks import Mark

STOP_BELOW = 0.005
"""Gain of a hundred more labels, in accuracy, below which one can stop."""


@dataclass(frozen=True)
class Suggestion:
    """What the head gives to an image: its most likely label, and the probability of it, 0..1."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Queue:
    """The images to label next.

    Attributes:
        rows: In order.
        clusters: The number of the cluster of similar images that each was chosen from.
        suggestions: By row; empty with labels of fewer than two classes.
        reason: `typical` or `uncertain`.
        why: Why they were chosen, for the user.
        outlook: What more labels would give; `None` with labels of fewer than two classes.
        labelled, waiting: How many images have a label that is used, and how many could be asked for.
        duplicates: Near-duplicates that are not asked for.
    """

    rows: tuple[int, ...]
    clusters: tuple[int, ...]
    suggestions: dict[int, Suggestion]
    reason: str
    why: str
    outlook: Outlook | None
    labelled: int
    waiting: int
    duplicates: int

    @property
    def can_stop(self) -> bool:
        """Whether more labels would hardly help."""
        return self.outlook is not None and self.outlook.gain is not None and self.outlook.gain < STOP_BELOW


def make_queue(
    features: ImageFeatures, marks: Sequence[Mark], classes: Sequence[str], number: int, skipped: Collection[int] = ()
) -> Queue:
    """Choose the images to label next.

    Args:
        features: What does not depend on labels.
        marks: The mark of each row; excluded images are not asked for.
        classes: Every class.
        number: How many images are wanted.
        skipped: Rows that are not wanted this time.
    """
    manifest = features.labelled(marks, classes)
    candidates = find_candidates(manifest, features.pairs)
    waiting = [row for row in candidates.waiting if not marks[row].excluded and row not in skipped]
    rows = np.array([*candidates.labelled, *waiting], int)
    indices = np.full(len(rows), UNLABELLED)
    names = list(classes)
    indices[: len(candidates.labelled)] = [names.index(marks[row].label or "") for row in candidates.labelled]
    pool = Pool(features.values[features.position[rows]], indices)
    with one_thread():
        order = order_images(pool, number)
        outlook = look_ahead(standardised(pool.values), pool) if waiting and len(pool.present) > 1 else None
    return Queue(
        rows=tuple(int(rows[choice.position]) for choice in order.choices),
        clusters=tuple(choice.cluster for choice in order.choices),
        suggestions=_suggestions(order, rows, names),
        reason=order.strategy.reason,
        why=order.strategy.why,
        outlook=outlook,
        labelled=len(candidates.labelled),
        waiting=len(waiting),
        duplicates=candidates.duplicates,
    )


def suggest(
    features: ImageFeatures, marks: Sequence[Mark], classes: Sequence[str], rows: Sequence[int]
) -> dict[int, Suggestion]:
    """Fit a head to the labels of now, and say what it gives to some rows; nothing with fewer than two classes.

    Args:
        features: What does not depend on labels.
        marks: The mark of each row.
        classes: Every class.
        rows: The images to classify.
    """
    names = list(classes)
    labelled = np.array([row for row in features.rows if marks[row].label is not None], int)
    indices = np.array([names.index(marks[row].label or "") for row in labelled], int)
    wanted = [row for row in rows if features.position[row] >= 0]
    if len(np.unique(indices)) < 2 or not wanted:
        return {}
    with one_thread():
        head = fit_head(features.scaled[features.position[labelled]], indices)
    probabilities = head.probabilities(features.scaled[features.position[wanted]])
    best = probabilities.argmax(axis=1)
    return {
        row: Suggestion(names[head.classes[index]], float(values[index]))
        for row, index, values in zip(wanted, best, probabilities, strict=True)
    }


def similar(features: ImageFeatures, marks: Sequence[Mark], row: int, number: int) -> list[int]:
    """The images without a label that are most similar to one, most similar first."""
    free = [other for other in features.rows.tolist() if marks[other] == Mark() and other != row]
    if not free or features.position[row] < 0:
        return []
    own = features.values[features.position[[row]]]
    return [free[index] for index in nearest(own, features.values[features.position[free]], number)[0][0]]


def _suggestions(order: Order, rows: np.ndarray, names: Sequence[str]) -> dict[int, Suggestion]:
    if order.suggested is None or order.confidence is None:
        return {}
    return {
        int(rows[choice.position]): Suggestion(
            names[order.suggested[choice.position]], float(order.confidence[choice.position])
        )
        for choice in order.choices
    }
