"""What a finished run predicts for the images that it was not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thaw.data.manifest import Manifest
from thaw.evaluation.records import Records, read_records
from thaw.run_folder import RunFolder
from thaw.studio.images import Images

MAX_MATRIX_CLASSES, MAX_CONFUSIONS = 40, 24
"""Classes of a confusion matrix that can be read; of more, so many of the most frequent confusions are shown."""


@dataclass(frozen=True)
class PredictedImage:
    """One image of validation or test.

    Attributes:
        row: Its row in the project.
        split: val or test.
        truth, predicted: Indices of the label that it had when the run began, and of the most likely class.
        confidence: Probability of the predicted class, 0..1.
        of_truth: Probability of the label, 0..1.
        nearest: Rows of the most similar training images, most similar first.
    """

    row: int
    split: str
    truth: int
    predicted: int
    confidence: float
    of_truth: float
    nearest: tuple[int, ...]


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of one run.

    Attributes:
        classes: Of the run, in the order of the indices.
        images: Errors first, the most confident one in front; then the rest, the least confident one in front.
        missing: How many images are no longer in the project, or are other images by now.
    """

    classes: tuple[str, ...]
    images: tuple[PredictedImage, ...]
    missing: int

    def confusion(self) -> np.ndarray:
        """(K, K) int: number of images by label (row) and predicted class (column)."""
        matrix = np.zeros((len(self.classes), len(self.classes)), int)
        for image in self.images:
            matrix[image.truth, image.predicted] += 1
        return matrix

    def confusions(self) -> list[tuple[int, int, int]]:
        """(label, predicted class, number of images) of errors, the most frequent ones first."""
        counts = Counter((image.truth, image.predicted) for image in self.images if image.truth != image.predicted)
        return [(*pair, images) for pair, images in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def read_predictions(run: RunFolder, images: Images) -> RunPredictions:
    """The predictions of a run on validation and test; raises `DataError` if its files are damaged."""
    manifest = Manifest.read(run.manifest)
    rows = images.rows_of(manifest)
    splits = {split for split in ("val", "test") if len(manifest.indices(split))}
    classes: tuple[str, ...] = ()
    found: list[PredictedImage] = []
    missing = 0
    for split in sorted(splits):
        records = read_records(run.predictions, split)
        classes = records.classes
        known = [_image(records, place, split, rows) for place in range(len(records.paths))]
        missing += known.count(None)
        found += [image for image in known if image]
    found.sort(key=_order)
    return RunPredictions(classes, tuple(found), missing)


def _image(records: Records, place: int, split: str, rows: Mapping[str, int]) -> PredictedImage | None:
    row = rows.get(records.paths[place])
    if row is None:
        return None
    probabilities = records.scored.probabilities[place]
    truth, predicted = int(records.scored.truth[place].argmax()), int(records.scored.predicted[place].argmax())
    near = (rows.get(path) for path in records.nearest[place])
    return PredictedImage(
        row,
        split,
        truth,
        predicted,
        float(probabilities[predicted]),
        float(probabilities[truth]),
        tuple(other for other in near if other is not None),
    )


def _order(image: PredictedImage) -> tuple[bool, float]:
    is_right = image.truth == image.predicted
    return is_right, image.confidence if is_right else -image.confidence
