"""The labelled images of an int8 export: some calibrate it, others measure its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.image_file import read_image_file
from thaw.errors import ExportError, UnreadableImage
from thaw.evaluation.evaluate import targets_for
from thaw.exports.inputs import decode_at_model_size, decode_full_size
from thaw.formats import count

MAX_CALIBRATION_IMAGES = 100
"""Images that calibrate at most; never more than a third of them, so that enough are left to measure accuracy."""
MIN_IMAGES = 30
"""Labelled images that int8 needs."""


@dataclass(frozen=True)
class LabelledFiles:
    """Labelled image files.

    Attributes:
        files: N image files.
        targets: (N,) or (N, classes), in the classifier's order.
        unreadable: Why a file cannot be read, of those that were found to be so.
    """

    files: tuple[Path, ...]
    targets: np.ndarray
    unreadable: dict[Path, str] = field(default_factory=dict)

    def readable(self, classifier: Classifier, at_model_size: bool = False) -> Iterator[tuple[np.ndarray, int]]:
        """Each readable image (H, W, 3) uint8 and its row; the others are noted as `unreadable`.

        Args:
            classifier: Whose settings they are decoded with.
            at_model_size: Whether they are resized and cropped.

        Raises:
            ExportError: None can be read.
        """
        decode, has_any = (decode_at_model_size if at_model_size else decode_full_size), False
        for row, file in enumerate(self.files):
            try:
                pixels = decode(read_image_file(file), classifier)
            except UnreadableImage as error:
                self.unreadable[file] = str(error)
                continue
            has_any = True
            yield pixels, row
        if not has_any:
            raise ExportError(f"{self.files[0].parent}: none of the {count(len(self.files), 'image')} can be read")


def split_for_calibration(classifier: Classifier, dataset: Dataset) -> tuple[LabelledFiles, LabelledFiles]:
    """Images to calibrate on and other images to test on, always the same.

    Raises:
        ExportError: There are fewer than `MIN_IMAGES`.
    """
    manifest = dataset.manifest
    if len(manifest) < MIN_IMAGES:
        found = count(len(manifest), "labelled image")
        raise ExportError(
            f"{manifest.root}: {found}; int8 needs at least {MIN_IMAGES} to calibrate and measure accuracy"
        )
    targets = targets_for(classifier, manifest)
    order = np.random.default_rng(0).permutation(len(manifest))
    calibration = min(MAX_CALIBRATION_IMAGES, len(manifest) // 3)
    first, second = (
        LabelledFiles(tuple(manifest.file(int(row)) for row in rows), targets[rows])
        for rows in (order[:calibration], order[calibration:])
    )
    return first, second
