"""Selection of the images of a report: rows of the predictions, the most important first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.evaluation.records import Records
from thaw.metrics import Scored
from thaw.reports.results import Results

MAX_IN_CELL, MAX_IN_CELLS = 12, 300
MAX_MATRIX_CLASSES, MAX_CONFUSIONS = 20, 24


@dataclass(frozen=True)
class SplitRow:
    """A row of the predictions on one split."""

    split: str
    row: int


@dataclass(frozen=True)
class CellRows:
    """A non-empty cell by class indices: how many images it has, and the rows to show."""

    true: int
    predicted: int
    count: int
    rows: np.ndarray


def most_confident_errors(scored: Scored) -> np.ndarray:
    """Rows with a wrong prediction, the most confident first; for multilabel by the worst label of the image."""
    if scored.task == "multilabel":
        confidence = wrong_label_scores(scored).max(axis=1)
    else:
        confidence = (scored.probabilities * scored.predicted).sum(axis=1)
    rows = np.flatnonzero(~scored.correct)
    return np.asarray(rows[np.argsort(-confidence[rows], kind="stable")])


def label_probability(scored: Scored) -> np.ndarray:
    """(N,) probability of the label that an image has; for multilabel of its least likely wrongly predicted one."""
    if scored.task == "multilabel":
        return np.asarray(1.0 - wrong_label_scores(scored).max(axis=1))
    return np.asarray((scored.probabilities * scored.truth).sum(axis=1))


def wrong_label_scores(scored: Scored) -> np.ndarray:
    """(N, C) how far the probability of each wrong label is from the truth; 0 for correct ones."""
    return np.asarray(np.abs(scored.truth - scored.probabilities) * (scored.truth != scored.predicted))


def farthest_first(record: Records) -> np.ndarray:
    """Out-of-distribution rows, the farthest from the training images first."""
    rows = np.flatnonzero(record.out_of_distribution)
    return np.asarray(rows[np.argsort(-record.distance[rows], kind="stable")])


def least_confident_first(record: Records) -> np.ndarray:
    """Ambiguous rows, the least confident first."""
    rows, confidence = np.flatnonzero(record.ambiguous), record.scored.probabilities.max(axis=1)
    return np.asarray(rows[np.argsort(confidence[rows], kind="stable")])


def probable_label_errors(results: Results) -> list[SplitRow]:
    """Wrongly predicted images with a likelier label than their own, the least likely own label first.

    A decision may predict a label that is not the most likely one; where it is the own one, nothing contradicts it.
    """
    found = []
    for split, record in results.records.items():
        scored, probability = record.scored, label_probability(record.scored)
        limit = 0.5 if scored.task == "multilabel" else scored.probabilities.max(axis=1)
        rows = np.flatnonzero(~scored.correct & (probability < limit))
        found += [(float(probability[row]), split, int(row)) for row in rows]
    return [SplitRow(split, row) for _, split, row in sorted(found)]


def confusion_cells(scored: Scored) -> list[CellRows]:
    """The non-empty cells, errors by decreasing count, then the diagonal.

    With more classes than a matrix can show, the most frequent errors only.
    """
    if scored.task == "multilabel":
        return []
    true, predicted = scored.truth.argmax(axis=1), scored.predicted.argmax(axis=1)
    confidence = scored.probabilities[np.arange(len(scored)), predicted]
    order = np.lexsort((-confidence, predicted, true))
    sorted_pairs = np.stack([true, predicted], axis=1)[order]
    pairs, starts, counts = np.unique(sorted_pairs, axis=0, return_index=True, return_counts=True)
    is_correct = pairs[:, 0] == pairs[:, 1]
    chosen = np.lexsort((-counts, is_correct)).tolist()
    if scored.truth.shape[1] > MAX_MATRIX_CLASSES:
        chosen = [index for index in chosen if not is_correct[index]][:MAX_CONFUSIONS]
    cells, remaining = [], MAX_IN_CELLS
    for index in chosen:
        shown = min(int(counts[index]), MAX_IN_CELL, remaining)
        remaining -= shown
        rows = order[starts[index] : starts[index] + shown]
        cells.append(CellRows(int(pairs[index, 0]), int(pairs[index, 1]), int(counts[index]), rows))
    return cells
