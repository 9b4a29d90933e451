"""How good a classifier is on labelled images, measured from the files through the very path that predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.metrics import Metrics, measure, wilson
from thaw.classifier.predict import THRESHOLD, Prediction, predict_files
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.training.fit import probabilities_at
from thaw.training.sources import Source

LARGEST_GAP = 0.02
"""Probability by which features from a fast engine may differ from the shipped path before they are not believed."""


@dataclass(frozen=True)
class ClassResult:
    """One class: shares in 0..1, and how many images carry it."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """Metrics over the readable images of one set.

    accuracy_low and accuracy_high: 95 % Wilson interval (1927) of the accuracy. confusion: images by true class (row)
    and predicted class (column), empty for multilabel. unreadable: (path, reason) of images left out.
    """

    images: int
    metrics: Metrics
    accuracy_low: float
    accuracy_high: float
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def evaluate_rows(
    classifier: Classifier, manifest: Manifest, rows: np.ndarray, on_progress: Callable[[int, int], None]
) -> Evaluation:
    """Evaluate on some rows of a data set; raises `DataError` when none of them can be read."""
    targets = targets_for(classifier, manifest)[rows]
    predictions: list[Prediction] = []
    for prediction in predict_files(classifier, (manifest.file(int(row)) for row in rows)):
        predictions.append(prediction)
        on_progress(len(predictions), len(rows))
    readable = np.array([prediction.status == "ok" for prediction in predictions], dtype=bool)
    if not readable.any():
        raise DataError(f"{manifest.root}: none of the {len(rows)} images can be read")
    probabilities = np.array([prediction.probabilities for prediction in predictions if prediction.status == "ok"])
    unreadable = tuple((str(item.path), item.reason) for item in predictions if item.status == "error")
    return summarise(classifier, probabilities, targets[readable], unreadable)


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation from stored features, and the probabilities (N, classes) that it stands on."""

    evaluation: Evaluation
    probabilities: np.ndarray


def evaluate_stored(classifier: Classifier, position: int, source: Source) -> StoredEvaluation:
    """Evaluate on the features at a cut, running what is above it in fp32 as a shipped classifier does."""
    probabilities, targets = probabilities_at(classifier, position, source, "fp32")
    return StoredEvaluation(summarise(classifier, probabilities, targets, ()), probabilities)


def gap_to_files(classifier: Classifier, probabilities: np.ndarray, files: Sequence[Path]) -> float:
    """Largest difference between probabilities (N, classes) and those that the classifier gives for the N files."""
    shipped = np.array([prediction.probabilities for prediction in predict_files(classifier, files)])
    return float(np.abs(shipped - probabilities).max()) if shipped.shape == probabilities.shape else float("inf")


def targets_for(classifier: Classifier, manifest: Manifest) -> np.ndarray:
    """Targets of a data set in the classifier's class order; raises `DataError` for a class it does not know."""
    strangers = [name for name in manifest.classes if name not in classifier.classes]
    if strangers:
        raise DataError(
            f"{manifest.root}: the classifier does not know {', '.join(strangers)}; "
            f"it was trained on {', '.join(classifier.classes)}"
        )
    place = {name: index for index, name in enumerate(classifier.classes)}
    labels = manifest.table.column("labels").to_pylist()
    if classifier.task == "multilabel":
        targets = np.zeros((len(labels), len(classifier.classes)), dtype=np.float32)
        for row, names in enumerate(labels):
            targets[row, [place[name] for name in names]] = 1.0
        return targets
    several = next((row for row, names in enumerate(labels) if len(names) != 1), None)
    if several is not None:
        raise DataError(f"{manifest.file(several)}: has {len(labels[several])} labels; this classifier gives one")
    return np.array([place[names[0]] for names in labels], dtype=np.int64)


def summarise(
    classifier: Classifier, probabilities: np.ndarray, targets: np.ndarray, unreadable: tuple[tuple[str, str], ...]
) -> Evaluation:
    """Metrics of probabilities (N, C) against targets in the classifier's order."""
    from sklearn.metrics import precision_recall_fscore_support

    metrics = measure(probabilities, targets, classifier.task)
    low, high = wilson(metrics.accuracy, len(targets))
    classes = np.arange(len(classifier.classes))
    if classifier.task == "multilabel":
        truth, predicted = targets.astype(int), (probabilities >= THRESHOLD).astype(int)
        confusion: tuple[tuple[int, ...], ...] = ()
    else:
        truth, predicted = targets, probabilities.argmax(axis=1)
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        np.add.at(counts, (truth, predicted), 1)
        confusion = tuple(tuple(int(count) for count in row) for row in counts)
    figures = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0.0)
    per_class = tuple(
        ClassResult(name, float(precision), float(recall), float(f1), int(images))
        for name, precision, recall, f1, images in zip(classifier.classes, *figures, strict=True)
    )
    return Evaluation(len(targets), metrics, low, high, per_class, confusion, unreadable)
