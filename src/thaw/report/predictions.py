"""results.csv: one row for each file that was asked about, written as the predictions come."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from thaw.classifier.classifier import Classifier
from thaw.classifier.predict import Prediction, predict_files
from thaw.data.layouts import images_under
from thaw.errors import DataError


def write_predictions(classifier: Classifier, places: Sequence[Path], out: Path | None) -> tuple[int, int]:
    """Classify every image at `places` (files, or folders searched for images) into a CSV file or standard output.

    The file appears when it is whole. Gives how many images were classified and how many could not be read.
    """
    files = list(files_at(places))
    if out is None:
        return _write(classifier, files, sys.stdout)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            counts = _write(classifier, files, stream)
        os.replace(temporary, out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return counts


def files_at(places: Sequence[Path]) -> Iterator[Path]:
    """Files as they are named, and every image in folders; raises `DataError` for a place where there is none."""
    for place in places:
        if place.is_dir():
            found = images_under(place)
            if not found:
                raise DataError(f"{place}: there is no image in this folder")
            yield from found
        elif place.exists():
            yield place
        else:
            raise DataError(f"{place}: there is no such file or folder")


def _write(classifier: Classifier, files: Sequence[Path], stream: TextIO) -> tuple[int, int]:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "status", "reason", "label", "confidence", *(f"p_{name}" for name in classifier.classes)))
    done = failed = 0
    for prediction in predict_files(classifier, files):
        writer.writerow(_row(prediction, len(classifier.classes)))
        failed += prediction.status == "error"
        done += prediction.status == "ok"
    return done, failed


def _row(prediction: Prediction, classes: int) -> tuple[object, ...]:
    if prediction.status == "error":
        return (prediction.path, "error", prediction.reason, "", "", *[""] * classes)
    figures = (f"{value:.6f}" for value in prediction.probabilities)
    return (prediction.path, "ok", "", prediction.label, f"{prediction.confidence:.6f}", *figures)
