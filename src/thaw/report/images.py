"""Which images the page of a run shows: cells of the confusion matrix, mistakes with reasons, odd ones, suspects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.data.manifest import Manifest
from thaw.evaluation.records import Records
from thaw.metrics import Scored
from thaw.progress import OnProgress
from thaw.report.album import Album, Picture
from thaw.report.verdict import SET_NAMES, Judged

MOST_MISTAKES, MOST_ODD, MOST_SUSPECTS = 12, 18, 24
MOST_IN_CELL, MOST_IN_CELLS = 12, 300
MOST_CLASSES, MOST_CONFUSIONS = 20, 24
CHECKED_MAPS = 8
_SMALL, _LARGE = 132, 200


@dataclass(frozen=True)
class Cell:
    """Images of one class that were called another, or the same: how many, which share of the class, some of them."""

    true: str
    given: str
    is_right: bool
    count: int
    fraction: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Confusion:
    """Cells that hold images. classes: those of the matrix, in order; empty where it would be too large to draw."""

    classes: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: the image, what spoke for the answer, and the training images that are most alike."""

    image: Picture
    why: Picture
    nearest: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Some of `total` pictures."""

    pictures: tuple[Picture, ...]
    total: int


@dataclass(frozen=True)
class Shown:
    """All pictures of the page. agreement: of maps with those of a random network, -1..1, and on how many images."""

    confusion: Confusion | None
    mistakes: tuple[Mistake, ...]
    mistakes_total: int
    out_of_distribution: Gallery
    ambiguous: Gallery
    label_errors: Gallery
    agreement: float | None
    checked: int


def show(judged: Judged, manifest: Manifest, album: Album, on_progress: OnProgress | None = None) -> Shown:
    """Choose the images, read each once, and caption them; what matters most gets its pictures first."""
    records, scored = judged.record, judged.record.scored
    wrong = surest_mistakes(scored)
    shown, odd = wrong[:MOST_MISTAKES], _odd(records)
    label_errors, cells = _suspects(judged), _cells(scored)
    album.read([records.paths[row] for row in shown], _LARGE)
    album.read(
        [
            *(path for row in shown for path in records.nearest[row]),
            *(judged.records[split].paths[row] for split, row in label_errors[:MOST_SUSPECTS]),
            *(records.paths[row] for rows in odd for row in rows[:MOST_ODD]),
            *(records.paths[row] for _, _, _, rows in cells for row in rows),
        ],
        _SMALL,
        on_progress,
    )
    checked = _spread(len(scored), CHECKED_MAPS)
    labels = scored.predicted.argmax(axis=1)
    mistakes = _mistakes(records, shown, manifest, album)
    suspected = Gallery(
        tuple(_suspect(judged.records[split], split, row, album) for split, row in label_errors[:MOST_SUSPECTS]),
        len(label_errors),
    )
    out_of_distribution, ambiguous = (
        Gallery(tuple(_said(records, row, album) for row in rows[:MOST_ODD]), len(rows)) for rows in odd
    )
    return Shown(
        confusion=_confusion(records, cells, album) if scored.task != "multilabel" else None,
        mistakes=mistakes,
        mistakes_total=len(wrong),
        out_of_distribution=out_of_distribution,
        ambiguous=ambiguous,
        label_errors=suspected,
        agreement=album.agreement_with_random([records.paths[row] for row in checked], labels[checked].tolist()),
        checked=len(checked),
    )


def surest_mistakes(scored: Scored) -> np.ndarray:
    """Rows whose answer is wrong, the surest of them first; for multilabel by their worst label."""
    off = np.abs(scored.truth - scored.probabilities) * (scored.truth != scored.predicted)
    sure = off.max(axis=1) if scored.task == "multilabel" else (scored.probabilities * scored.predicted).sum(axis=1)
    rows = np.flatnonzero(~scored.correct)
    return np.asarray(rows[np.argsort(-sure[rows], kind="stable")])


def own_probability(scored: Scored) -> np.ndarray:
    """(N,) what the classifier gives the label that an image has; for multilabel the least of its yes and no."""
    if scored.task == "multilabel":
        return np.asarray(np.where(scored.truth, scored.probabilities, 1.0 - scored.probabilities).min(axis=1))
    return np.asarray((scored.probabilities * scored.truth).sum(axis=1))


def _mistakes(records: Records, rows: np.ndarray, manifest: Manifest, album: Album) -> tuple[Mistake, ...]:
    scored, paths = records.scored, [records.paths[row] for row in rows]
    off = np.abs(scored.truth - scored.probabilities) * (scored.truth != scored.predicted)
    indices = [int((off if scored.task == "multilabel" else scored.predicted)[row].argmax()) for row in rows]
    wanted = {path for row in rows for path in records.nearest[row]}
    pairs = zip(manifest.column("path"), manifest.column("labels"), strict=True)
    labels = {path: " + ".join(names) for path, names in pairs if path in wanted}
    images = [album.picture(records.paths[row], _LARGE, *_given_and_true(records, row)) for row in rows]
    captions = [f"what speaks for {records.classes[index]}" for index in indices]
    reasons = album.explained(paths, indices, _LARGE, captions)
    return tuple(
        Mistake(
            image,
            why,
            tuple(album.picture(path, _SMALL, labels.get(path) or "no label") for path in records.nearest[row]),
        )
        for row, image, why in zip(rows, images, reasons, strict=True)
    )


def _odd(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Rows unlike any training image, the farthest first, and rows without one likely class, the least sure first."""
    out_of_distribution, ambiguous = np.flatnonzero(records.out_of_distribution), np.flatnonzero(records.ambiguous)
    most_likely = records.scored.probabilities.max(axis=1)
    farthest = out_of_distribution[np.argsort(-records.distance[out_of_distribution], kind="stable")]
    return farthest, ambiguous[np.argsort(most_likely[ambiguous], kind="stable")]


def _suspects(judged: Judged) -> list[tuple[str, int]]:
    """(set, row) of images whose own label is unlikely, below one half, the least likely first."""
    found = []
    for split, records in judged.records.items():
        own = own_probability(records.scored)
        most_likely = records.scored.probabilities.max(axis=1)
        rows = np.flatnonzero(own < (0.5 if records.scored.task == "multilabel" else most_likely))
        found += [(float(own[row]), split, int(row)) for row in rows]
    return [(split, row) for _, split, row in sorted(found)]


def _suspect(records: Records, split: str, row: int, album: Album) -> Picture:
    scored = records.scored
    likely, has = scored.probabilities[row], scored.truth[row]
    if scored.task == "multilabel":
        index = int(np.where(has, likely, 1.0 - likely).argmin())
        name = records.classes[index]
        caption = (
            f"labelled {name} ({100 * likely[index]:.1f} %)"
            if has[index]
            else f"not labelled {name} ({100 * likely[index]:.1f} %)"
        )
    else:
        own, suggested = int(has.argmax()), int(likely.argmax())
        caption = (
            f"labelled {records.classes[own]} ({100 * likely[own]:.1f} %), "
            f"looks like {records.classes[suggested]} ({100 * likely[suggested]:.1f} %)"
        )
    return album.picture(records.paths[row], _SMALL, caption, SET_NAMES[split])


def _said(records: Records, row: int, album: Album) -> Picture:
    return album.picture(records.paths[row], _SMALL, *_given_and_true(records, row))


def _given_and_true(records: Records, row: int) -> tuple[str, str]:
    """What the classifier says of an image, with probabilities, and what its label is."""
    scored = records.scored
    said = [
        f"{records.classes[i]} {100 * scored.probabilities[row, i]:.1f} %"
        for i in np.flatnonzero(scored.predicted[row])
    ]
    true = [records.classes[index] for index in np.flatnonzero(scored.truth[row])]
    return f"said {' + '.join(said) or 'nothing'}", f"labelled {' + '.join(true) or 'nothing'}"


def _cells(scored: Scored) -> list[tuple[int, int, int, np.ndarray]]:
    """(true class, given class, images, rows to show) of each cell with images: mistakes by their number, then hits.

    Of more classes than a matrix can show, the most frequent mistakes alone.
    """
    if scored.task == "multilabel":
        return []
    true, given = scored.truth.argmax(axis=1), scored.predicted.argmax(axis=1)
    sure = scored.probabilities[np.arange(len(scored)), given]
    order = np.lexsort((-sure, given, true))
    pairs, starts, counts = np.unique(np.stack([true, given])[:, order], axis=1, return_index=True, return_counts=True)
    found, left = [], MOST_IN_CELLS
    places = sorted(range(pairs.shape[1]), key=lambda k: (pairs[0, k] == pairs[1, k], -counts[k]))
    if scored.truth.shape[1] > MOST_CLASSES:
        places = [place for place in places if pairs[0, place] != pairs[1, place]][:MOST_CONFUSIONS]
    for place in places:
        shown = min(int(counts[place]), MOST_IN_CELL, left)
        left -= shown
        rows = order[starts[place] : starts[place] + shown]
        found.append((int(pairs[0, place]), int(pairs[1, place]), int(counts[place]), rows))
    return found


def _confusion(records: Records, cells: Sequence[tuple[int, int, int, np.ndarray]], album: Album) -> Confusion:
    classes, totals = records.classes, records.scored.truth.sum(axis=0)
    return Confusion(
        classes if len(classes) <= MOST_CLASSES else (),
        tuple(
            Cell(
                classes[true],
                classes[given],
                true == given,
                count,
                count / int(totals[true]),
                tuple(_in_cell(records, int(row), given, album) for row in rows),
            )
            for true, given, count, rows in cells
        ),
    )


def _in_cell(records: Records, row: int, given: int, album: Album) -> Picture:
    return album.picture(records.paths[row], _SMALL, f"{100 * records.scored.probabilities[row, given]:.1f} %")


def _spread(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).astype(int)
