"""What int8 costs in accuracy and gains in size and time, measured on labelled images that did not calibrate it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.errors import ExportError
from thaw.evaluation.evaluate import score
from thaw.exports.labelled_files import LabelledFiles
from thaw.exports.target import Infer
from thaw.formats import count, percent


@dataclass(frozen=True)
class Quality:
    """What an export is like.

    Attributes:
        size: Its size in bytes.
        latency_ms: Its median latency for one image in milliseconds.
        accuracy: Its accuracy in 0..1, by the decision of the classifier.
        images: How many images could be read, on which both were measured.
    """

    size: int
    latency_ms: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class Quantisation:
    """What int8 cost.

    Attributes:
        before: The fp32 export.
        after: The int8 export.
        calibration_images: How many images the ranges of activations were measured on.
    """

    before: Quality
    after: Quality
    calibration_images: int

    @property
    def test_images(self) -> int:
        """How many other images both exports were compared on."""
        return self.after.images

    @property
    def accuracy_drop(self) -> float:
        """Lost accuracy in percentage points."""
        return 100.0 * (self.before.accuracy - self.after.accuracy)


def measure_quality(
    infer: Infer, size: int, classifier: Classifier, images: LabelledFiles, at_model_size: bool = False
) -> Quality:
    """Run every readable image on its own, at full size or resized; raises `ExportError` if there is none."""
    probabilities, rows, seconds = [], [], []
    for image, row in images.readable(classifier, at_model_size):
        started = time.perf_counter()
        probabilities.append(infer(image[None])[0])
        seconds.append(time.perf_counter() - started)
        rows.append(row)
    # By the classifier's own decision, as `thaw evaluate` has it.
    accuracy = float(score(classifier, np.stack(probabilities), images.targets[rows]).correct.mean())
    return Quality(size, 1000.0 * float(np.median(seconds)), accuracy, len(rows))


def check_accuracy_drop(quantisation: Quantisation, max_drop: float) -> None:
    """Raise `ExportError` if accuracy drops by more than `max_drop` percentage points."""
    # Written so that NaN fails.
    if not quantisation.accuracy_drop <= max_drop:
        raise ExportError(
            f"int8 lowers accuracy by {quantisation.accuracy_drop:.1f} points on "
            f"{count(quantisation.test_images, 'image')}, from {percent(quantisation.before.accuracy)} to "
            f"{percent(quantisation.after.accuracy)}, more than --max-drop {max_drop:g}; it was discarded: export "
            "without --int8"
        )
