"""The golden images of a bundle: a few images with the probabilities that it must reproduce before it is used."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw import atomic
from thaw.checksums import sha256_of
from thaw.classifier.classifier import Classifier
from thaw.errors import BundleError
from thaw.prediction.predict import Prediction, predict_files

TOLERANCE = 1e-4
"""Largest accepted difference between a probability of a golden image and the stored one."""
_FOLDER, _RECORD = "golden", "golden.json"
_PLAIN_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\\0]+")


@dataclass(frozen=True)
class _Golden:
    """An image file, and its probabilities in class order."""

    file: Path
    probabilities: tuple[float, ...]


def write_golden(classifier: Classifier, bundle: Path, images: Sequence[Path]) -> None:
    """Copy image files into a bundle that is being written, with what the classifier gives for them."""
    folder = bundle / _FOLDER
    folder.mkdir()
    entries = []
    for number, prediction in enumerate(predict_files(classifier, images)):
        name = f"{number:02d}{prediction.path.suffix.lower()}"
        shutil.copyfile(prediction.path, folder / name)
        entries.append(
            {
                "file": name,
                "sha256": sha256_of(folder / name),
                "label": prediction.label,
                "probabilities": prediction.probabilities,
            }
        )
    atomic.write_text(folder / _RECORD, json.dumps(entries, indent=2, ensure_ascii=False))


def golden_of(bundle: Path) -> list[Path]:
    """The golden images of a bundle; empty if it has none. Raises `BundleError` where golden.json is malformed."""
    return [golden.file for golden in _read(bundle)]


def certify(classifier: Classifier, bundle: Path) -> None:
    """Predict the golden images of a bundle and compare with the stored probabilities.

    Raises:
        BundleError: A probability differs by more than 1e-4, an image cannot be read, or golden.json is malformed.
    """
    golden = _read(bundle)
    if not golden:
        return
    # In the batches in which they were predicted when they were written.
    predictions = list(predict_files(classifier, [each.file for each in golden]))
    for each, prediction in zip(golden, predictions, strict=True):
        # Written so that NaN is no agreement.
        if not _distance(prediction, each.probabilities) <= TOLERANCE:
            raise BundleError(
                f"{each.file}: the bundle does not reproduce the probabilities that were stored with this image"
                + (f", which cannot be read: {prediction.reason}" if prediction.reason else "")
            )


def _distance(prediction: Prediction, expected: Sequence[float]) -> float:
    if prediction.status != "ok" or len(prediction.probabilities) != len(expected):
        return float("inf")
    return float(np.abs(np.subtract(prediction.probabilities, expected)).max())


def _read(bundle: Path) -> list[_Golden]:
    """What golden.json says of each golden image; raises `BundleError` where it is malformed."""
    record = bundle / _FOLDER / _RECORD
    if not record.is_file():
        return []
    try:
        entries = json.loads(record.read_bytes())
        if not isinstance(entries, list) or not entries:
            raise ValueError("it is not a list of images")
        return [
            _Golden(record.parent / _plain(entry["file"]), tuple(float(value) for value in entry["probabilities"]))
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise BundleError(f"{record}: cannot be read: {error}; restore the bundle") from error


def _plain(name: str) -> str:
    """The name of a file in a folder; raises `ValueError` for one that leads elsewhere."""
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a file in its folder")
    return name
