"""What more work at prediction time would bring: averaging with the mirror image, and looking at a larger picture.

Mirrored images are averaged as Krizhevsky et al. 2012 did; a network that was trained on random crops often sees best
at a somewhat larger size than it was trained at (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.evaluation.evaluate import score
from thaw.evaluation.metrics import Estimate, difference
from thaw.prediction.predict import read_files, read_pixels
from thaw.prediction.predictor import BATCH, Predictor, at_image_size
from thaw.recipe import Engine

LARGER = (1.15, 1.3)
"""Sides of the picture, as multiples of the one that was trained at, rounded to what networks halve five times."""

_STEP = 32


@dataclass(frozen=True)
class Option:
    """One way to predict, beside the plain one: what it does to accuracy and log loss on the same images, and its cost.

    cost: times as long as plain prediction takes.
    """

    size: int
    mirrored: bool
    accuracy: Estimate
    loss: Estimate
    cost: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.size} px" + (", with the mirror image" if self.mirrored else "")

    @property
    def pays(self) -> bool:
        """Whether the log loss falls beyond its 95 % interval."""
        return self.loss.high < 0


def try_options(
    classifier: Classifier,
    files: Sequence[Path],
    targets: np.ndarray,
    groups: np.ndarray | None,
    engine: Engine,
    on_progress: Callable[[int, int], None],
) -> tuple[Option, ...]:
    """Predict readable images plainly and in every other way; give the others beside the plain one.

    `targets` are those of the files in the classifier's class order.
    """
    trained = classifier.backbone.facts.pixels.size
    sizes = list(dict.fromkeys([trained, *(_rounded(trained * factor) for factor in LARGER)]))
    ways = [(size, mirrored) for size in sizes for mirrored in (False, True)]
    tried = []
    for number, (size, mirrored) in enumerate(ways, start=1):
        with at_image_size(classifier, size):
            tried.append(_predict(classifier, files, Predictor(classifier, engine, classifier.device, mirrored)))
        on_progress(number, len(ways))
    (plain, usual), *others = tried
    found = []
    for (size, mirrored), (probabilities, seconds) in zip(ways[1:], others, strict=True):
        beside = score(classifier, probabilities, targets, groups)
        change = difference(score(classifier, plain, targets, groups), beside)
        found.append(Option(size, mirrored, change["accuracy"], change["loss"], seconds / usual))
    return tuple(found)


def _predict(classifier: Classifier, files: Sequence[Path], predictor: Predictor) -> tuple[np.ndarray, float]:
    """Probabilities (N, C) of images, and the seconds that the network took for them."""
    found, seconds = [], 0.0
    predictor.probabilities(np.stack([read_pixels(classifier, files[0])] * BATCH))
    for batch in read_files(classifier, files, BATCH):
        started = time.perf_counter()
        found.append(predictor.probabilities(batch.pixels))
        seconds += time.perf_counter() - started
    return np.concatenate(found), seconds


def _rounded(size: float) -> int:
    return max(_STEP, round(size / _STEP) * _STEP)
