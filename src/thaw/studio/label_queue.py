"""The images to label next, and what a head on the labels so far says about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.classifier.neighbours import nearest
from thaw.inspection.linear_probe import one_thread
from thaw.labelling.candidates import find_candidates
from thaw.labelling.head import fit_head, standardised
from thaw.labelling.order import order_images
from thaw.labelling.outlook import Outlook, look_ahead
from thaw.labelling.pool import UNLABELLED, Pool
from thaw.labelling.strategy import Strategy
from thaw.studio.features import Snapshot
from thaw.studio.marks import UNLABELLED as NO_LABEL


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
        suggestions: By row; empty with labels of fewer than two classes.
        strategy: How they were chosen, and why.
        labelled, waiting: How many images have a label that is used, and how many could be asked for.
        duplicates: Identical images and near-duplicates that are not asked for.
    """

    rows: tuple[int, ...]
    suggestions: Mapping[int, Suggestion]
    strategy: Strategy
    labelled: int
    waiting: int
    duplicates: int


@dataclass(frozen=True)
class _Pool:
    """What can be asked for: the rows of a pool, of which the first `labelled` have a label."""

    pool: Pool
    rows: np.ndarray
    labelled: int
    duplicates: int


def make_queue(
    snapshot: Snapshot, number: int, skipped: Collection[int] = (), strategy: Strategy | None = None
) -> Queue:
    """Choose the images to label next.

    Args:
        snapshot: The images and their labels; excluded images are not asked for.
        number: How many images are wanted.
        skipped: Rows that are not wanted this time.
        strategy: How to choose; `None` measures it on the labels.
    """
    found = _pool(snapshot, skipped)
    with one_thread():
        order = order_images(found.pool, number, strategy)
    suggestions = {}
    for choice in order.choices:
        if order.suggested is not None and order.confidence is not None:
            label = snapshot.classes[order.suggested[choice.position]]
            suggestion = Suggestion(label, float(order.confidence[choice.position]))
            suggestions[int(found.rows[choice.position])] = suggestion
    return Queue(
        rows=tuple(int(found.rows[choice.position]) for choice in order.choices),
        suggestions=suggestions,
        strategy=order.strategy,
        labelled=found.labelled,
        waiting=len(found.rows) - found.labelled,
        duplicates=found.duplicates,
    )


def outlook(snapshot: Snapshot) -> Outlook | None:
    """What a hundred more labels would give; `None` where nothing is left to label, or two classes have no label."""
    found = _pool(snapshot, ())
    if len(found.pool.present) < 2 or len(found.rows) == found.labelled:
        return None
    with one_thread():
        return look_ahead(standardised(found.pool.values), found.pool)


def suggest(snapshot: Snapshot, rows: Sequence[int]) -> dict[int, Suggestion]:
    """Fit a head to the labels, and say what it gives to some rows; nothing with labels of fewer than two classes."""
    features, marks = snapshot.features, snapshot.marks
    labelled = np.array([row for row in features.rows if marks[row].label is not None], int)
    classes = snapshot.class_indices(labelled)
    wanted = [row for row in rows if features.position[row] >= 0]
    if len(np.unique(classes)) < 2 or not wanted:
        return {}
    with one_thread():
        head = fit_head(features.scaled[features.position[labelled]], classes)
    probabilities = head.probabilities(features.scaled[features.position[wanted]])
    best = probabilities.argmax(axis=1)
    return {
        row: Suggestion(snapshot.classes[head.classes[index]], float(values[index]))
        for row, index, values in zip(wanted, best, probabilities, strict=True)
    }


def similar(snapshot: Snapshot, row: int, number: int) -> list[int]:
    """The images without a label that are most similar to one, most similar first."""
    features, marks = snapshot.features, snapshot.marks
    free = [other for other in features.rows.tolist() if marks[other] == NO_LABEL and other != row]
    if not free or features.position[row] < 0:
        return []
    own = features.values[features.position[[row]]]
    return [free[index] for index in nearest(own, features.values[features.position[free]], number)[0][0]]


def _pool(snapshot: Snapshot, skipped: Collection[int]) -> _Pool:
    features, marks = snapshot.features, snapshot.marks
    excluded = {row for row, mark in enumerate(marks) if mark.excluded}
    candidates = find_candidates(snapshot.manifest, features.pairs, excluded)
    waiting = [row for row in candidates.waiting if row not in skipped]
    rows = np.array([*candidates.labelled, *waiting], int)
    classes = np.full(len(rows), UNLABELLED)
    classes[: len(candidates.labelled)] = snapshot.class_indices(candidates.labelled)
    pool = Pool(features.values[features.position[rows]], classes)
    return _Pool(pool, rows, len(candidates.labelled), candidates.duplicates)
