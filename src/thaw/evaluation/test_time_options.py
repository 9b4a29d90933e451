"""What test-time options change: averaging with the mirror image, and predicting at a larger image size.

Mirror images are averaged as by Krizhevsky et al. 2012. A network trained on random crops is often most accurate at an
image size somewhat above that of training (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.errors import DataError
from thaw.evaluation.evaluate import score
from thaw.metrics import Estimate, differences
from thaw.prediction.predict import read_files
from thaw.prediction.predictor import BATCH, Predictor
from thaw.progress import OnProgress
from thaw.recipe import Engine

SIZE_FACTORS = (1.15, 1.3)
"""Image sizes to try, as multiples of the size that was trained at."""

_SIZE_STEP = 32
"""Image sizes are multiples of the total stride of the network."""


@dataclass(frozen=True)
class Option:
    """One test-time option compared with plain prediction on the same images.

    Attributes:
        size: Side of the image, in pixels.
        mirrored: Whether predictions are averaged with those of the mirror image.
        accuracy: Difference in accuracy.
        loss: Difference in log loss, in nats.
        cost: Prediction time as a multiple of that of plain prediction.
    """

    size: int
    mirrored: bool
    accuracy: Estimate
    loss: Estimate
    cost: float

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.size} px" + (", with the mirror image" if self.mirrored else "")

    @property
    def pays(self) -> bool:
        """Whether it lowers the log loss, and the 95% interval excludes 0."""
        return self.loss.high < 0


def compare_test_time_options(
    classifier: Classifier,
    files: Sequence[Path],
    targets: np.ndarray,
    groups: np.ndarray | None,
    engine: Engine,
    on_progress: OnProgress,
) -> tuple[Option, ...]:
    """Predict with every combination of image size and mirroring, and compare each with plain prediction.

    Raises `DataError` for an image that cannot be read.

    Args:
        classifier: Left unchanged.
        files: N images.
        targets: Their targets in the classifier's class order.
        groups: (N,) int, which images are dependent; `None` where all are independent.
        engine: What runs the network.
        on_progress: Called with the number of combinations that are done, and of all.
    """
    trained_size = classifier.backbone.facts.pixels.size
    sizes = list(dict.fromkeys([trained_size, *(_rounded(trained_size * factor) for factor in SIZE_FACTORS)]))
    combinations = [(size, mirrored) for size in sizes for mirrored in (False, True)]
    results = []
    for number, (size, mirrored) in enumerate(combinations, start=1):
        predictor = Predictor(classifier, engine, classifier.device, mirrored, size)
        results.append(_timed_predictions(classifier, files, predictor))
        on_progress(number, len(combinations))
    (plain_probabilities, plain_seconds), *others = results
    plain = score(classifier, plain_probabilities, targets, groups)
    options = []
    for (size, mirrored), (probabilities, seconds) in zip(combinations[1:], others, strict=True):
        change = differences(plain, score(classifier, probabilities, targets, groups))
        options.append(Option(size, mirrored, change["accuracy"], change["loss"], seconds / plain_seconds))
    return tuple(options)


def _timed_predictions(classifier: Classifier, files: Sequence[Path], predictor: Predictor) -> tuple[np.ndarray, float]:
    """Probabilities (N, C), and the seconds that the network took for them after one batch to warm up."""
    probabilities, seconds = [], 0.0
    for number, batch in enumerate(read_files(classifier, files, BATCH, predictor.pixel_spec)):
        for file, reason in zip(batch.files, batch.reasons, strict=True):
            if reason is not None:
                raise DataError(f"{file}: {reason}; the options are compared on all validation images of the run")
        if number == 0:
            predictor.probabilities(batch.pixels)
        started = time.perf_counter()
        probabilities.append(predictor.probabilities(batch.pixels))
        seconds += time.perf_counter() - started
    return np.concatenate(probabilities), seconds


def _rounded(size: float) -> int:
    return max(_SIZE_STEP, round(size / _SIZE_STEP) * _SIZE_STEP)
