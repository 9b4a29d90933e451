"""The images of a report: confusion matrix cells, confident errors with evidence, label errors, flagged images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.data.manifest import Manifest
from thaw.evaluation.records import Records
from thaw.formats import percent
from thaw.html.thumbnails import Gallery, Thumbnail
from thaw.progress import OnProgress
from thaw.reports.album import Album
from thaw.reports.results import SPLIT_NAMES, Results
from thaw.reports.selection import (
    MAX_MATRIX_CLASSES,
    CellRows,
    SplitRow,
    confusion_cells,
    farthest_first,
    least_confident_first,
    most_confident_errors,
    probable_label_errors,
    wrong_label_scores,
)

MAX_ERRORS, MAX_FLAGGED, MAX_LABEL_ERRORS = 12, 18, 24
CHECKED_MAPS = 8
_SMALL, _LARGE = 132, 200


@dataclass(frozen=True)
class ConfusionCell:
    """Images of one true class with one predicted class.

    Attributes:
        fraction: Of the images of the true class, 0..1.
        thumbnails: Some of the images, the most confident predictions first.
    """

    true: str
    predicted: str
    count: int
    fraction: float
    thumbnails: tuple[Thumbnail, ...]

    @property
    def is_correct(self) -> bool:
        """Whether the cell lies on the diagonal."""
        return self.true == self.predicted


@dataclass(frozen=True)
class ConfusionMatrix:
    """The non-empty cells, errors first.

    Attributes:
        classes: Rows and columns of the matrix; empty for too many classes, where `cells` are the most frequent errors.
    """

    classes: tuple[str, ...]
    cells: tuple[ConfusionCell, ...]


@dataclass(frozen=True)
class ConfidentError:
    """A wrong prediction: the image, the evidence, and its nearest training images.

    The evidence is that for the predicted class; for multilabel for the label that is predicted most wrongly.
    """

    image: Thumbnail
    evidence: Thumbnail
    neighbours: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class MapCheck:
    """Sanity check of the class activation maps: rank correlation, -1..1, with random weights on some images."""

    agreement: float
    images: int


@dataclass(frozen=True)
class ReportImages:
    """All images of a report.

    Attributes:
        confusion: `None` for multilabel.
        errors: Some of `errors_total` wrong predictions, the most confident first.
        map_check: `None` for a backbone without feature maps.
    """

    confusion: ConfusionMatrix | None
    errors: tuple[ConfidentError, ...]
    errors_total: int
    label_errors: Gallery
    out_of_distribution: Gallery
    ambiguous: Gallery
    map_check: MapCheck | None


def read_images(
    results: Results, manifest: Manifest, album: Album, on_progress: OnProgress | None = None
) -> ReportImages:
    """Choose the images of a report, read each file once, and caption them.

    Args:
        results: Predictions of the run.
        manifest: Manifest of the run, for the labels of training images.
        album: Reads the files; its budget goes to the most important images first.
        on_progress: Called with the number of images read, and of all to read.
    """
    record, scored = results.record, results.record.scored
    errors, label_errors, cells = most_confident_errors(scored), probable_label_errors(results), confusion_cells(scored)
    out_of_distribution, ambiguous = farthest_first(record), least_confident_first(record)
    shown_errors, shown_label_errors = errors[:MAX_ERRORS], label_errors[:MAX_LABEL_ERRORS]
    shown_flagged = [*out_of_distribution[:MAX_FLAGGED], *ambiguous[:MAX_FLAGGED]]

    album.read([record.paths[row] for row in shown_errors], _LARGE)
    small = [
        *(path for row in shown_errors for path in record.nearest[row]),
        *(results.records[item.split].paths[item.row] for item in shown_label_errors),
        *(record.paths[row] for row in shown_flagged),
        *(record.paths[row] for cell in cells for row in cell.rows),
    ]
    album.read(small, _SMALL, on_progress)

    # Thumbnails are taken from the budget of the album in this order.
    confident_errors = _confident_errors(record, shown_errors, manifest, album)
    label_error_gallery = Gallery(
        "Probable label errors",
        "Images of validation and test that are predicted wrongly and whose label the classifier finds unlikely, the "
        "least likely first. Some are errors of the classifier; where the label is wrong, fix it.",
        tuple(_label_error(results.records[item.split], item, album) for item in shown_label_errors),
        len(label_errors),
    )
    out_of_distribution_gallery = Gallery(
        "Out-of-distribution images",
        "Farther from the training images than nearly all validation images: another kind of part, another camera, a "
        "corrupt image. Flagged for review.",
        _with_prediction(record, out_of_distribution[:MAX_FLAGGED], album),
        len(out_of_distribution),
    )
    ambiguous_gallery = Gallery(
        "Ambiguous images",
        "Several classes are likely, or none, or only one that is not predicted; the least confident first. Flagged "
        "for review.",
        _with_prediction(record, ambiguous[:MAX_FLAGGED], album),
        len(ambiguous),
    )
    return ReportImages(
        confusion=_confusion(record, cells, album) if scored.task != "multilabel" else None,
        errors=confident_errors,
        errors_total=len(errors),
        label_errors=label_error_gallery,
        out_of_distribution=out_of_distribution_gallery,
        ambiguous=ambiguous_gallery,
        map_check=_check_maps(record, album),
    )


def _confident_errors(
    record: Records, rows: np.ndarray, manifest: Manifest, album: Album
) -> tuple[ConfidentError, ...]:
    scored = record.scored
    scores = wrong_label_scores(scored) if scored.task == "multilabel" else scored.predicted
    explained = [int(scores[row].argmax()) for row in rows]
    neighbours = {path for row in rows for path in record.nearest[row]}
    all_labels = zip(manifest.column("path"), manifest.column("labels"), strict=True)
    labels = {path: " + ".join(names) or "no label" for path, names in all_labels if path in neighbours}

    images = [album.thumbnail(record.paths[row], _LARGE, *_prediction_and_label(record, row)) for row in rows]
    captions = [f"evidence for {record.classes[index]}" for index in explained]
    evidence = album.evidence([record.paths[row] for row in rows], explained, _LARGE, captions)
    return tuple(
        ConfidentError(
            image,
            overlaid,
            tuple(album.thumbnail(path, _SMALL, labels.get(path, "no label")) for path in record.nearest[row]),
        )
        for row, image, overlaid in zip(rows, images, evidence, strict=True)
    )


def _label_error(record: Records, item: SplitRow, album: Album) -> Thumbnail:
    scored, classes = record.scored, record.classes
    probabilities, truth = scored.probabilities[item.row], scored.truth[item.row]
    if scored.task == "multilabel":
        least = int(wrong_label_scores(scored)[item.row].argmax())
        caption = f"{'' if truth[least] else 'not '}labelled {classes[least]} ({percent(probabilities[least])})"
    else:
        given, likely = int(truth.argmax()), int(probabilities.argmax())
        caption = (
            f"labelled {classes[given]} ({percent(probabilities[given])}), "
            f"most likely {classes[likely]} ({percent(probabilities[likely])})"
        )
    return album.thumbnail(record.paths[item.row], _SMALL, caption, SPLIT_NAMES[item.split])


def _with_prediction(record: Records, rows: np.ndarray, album: Album) -> tuple[Thumbnail, ...]:
    return tuple(album.thumbnail(record.paths[row], _SMALL, *_prediction_and_label(record, row)) for row in rows)


def _prediction_and_label(record: Records, row: int) -> tuple[str, str]:
    """Captions of an image: its predicted labels with their probabilities, and its true labels."""
    scored, classes = record.scored, record.classes
    predicted = [
        f"{classes[index]} {percent(scored.probabilities[row, index])}"
        for index in np.flatnonzero(scored.predicted[row])
    ]
    labels = [classes[index] for index in np.flatnonzero(scored.truth[row])]
    return f"predicted {' + '.join(predicted) or 'no label'}", f"labelled {' + '.join(labels) or 'no label'}"


def _confusion(record: Records, cells: Sequence[CellRows], album: Album) -> ConfusionMatrix:
    classes, totals = record.classes, record.scored.truth.sum(axis=0)
    probabilities = record.scored.probabilities
    return ConfusionMatrix(
        classes if len(classes) <= MAX_MATRIX_CLASSES else (),
        tuple(
            ConfusionCell(
                true=classes[cell.true],
                predicted=classes[cell.predicted],
                count=cell.count,
                fraction=cell.count / int(totals[cell.true]),
                thumbnails=tuple(
                    album.thumbnail(record.paths[row], _SMALL, percent(probabilities[row, cell.predicted]))
                    for row in cell.rows
                ),
            )
            for cell in cells
        ),
    )


def _check_maps(record: Records, album: Album) -> MapCheck | None:
    """The sanity check on images spread evenly over the split."""
    rows = np.linspace(0, len(record.paths) - 1, min(len(record.paths), CHECKED_MAPS)).astype(int)
    predicted = record.scored.predicted.argmax(axis=1)[rows]
    agreement = album.agreement_with_random([record.paths[row] for row in rows], predicted.tolist())
    return None if agreement is None else MapCheck(agreement, len(rows))
