"""Evaluation of a classifier on labelled images: metrics with 95% intervals, confusion matrix, thresholds, review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import MANY_CLASSES
from thaw.classifier.outputs import LabelledOutputs
from thaw.data.manifest import Manifest
from thaw.data.split_units import groups_of
from thaw.errors import DataError
from thaw.evaluation.review import ReviewRates, review_rates
from thaw.evaluation.thresholds import ThresholdResult, threshold_results
from thaw.formats import MANY, listed
from thaw.metrics import Estimate, Estimates, Scored, overall_and_per_class, truth_of
from thaw.prediction.predict import Prediction, predict_files
from thaw.progress import OnProgress

LARGEST_GAP = 0.02
"""Largest difference in probability between cached features and the shipped path for the features to be trusted."""


@dataclass(frozen=True)
class ClassResult:
    """One class: its name, its number of images, and the metrics of `CLASS_METRICS` by name."""

    name: str
    images: int
    metrics: Estimates


@dataclass(frozen=True)
class Evaluation:
    """Metrics on the readable images of one set.

    Attributes:
        images: Number of images.
        groups: Number of independent groups, over which intervals are computed; `images` where all are independent.
        overall: The metrics of `METRICS` by name; a file of an earlier release may lack some.
        per_class: One result per class, in the order of the classifier.
        confusion: Number of images by true class (row) and predicted class (column); empty for multilabel.
        review: What is flagged for review; `None` for a classifier without a review policy.
        thresholds: What each threshold of the decision gives.
        unreadable: (path, reason) of each image that could not be read and is excluded.
        images_of_run: Number of images with the bytes of an image of the classifier's own run, by its split there;
            `None` if they were not compared.
        notes: Remarks on the images, such as folders that were left out.
    """

    images: int
    groups: int
    overall: Estimates
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    review: ReviewRates | None
    thresholds: tuple[ThresholdResult, ...]
    unreadable: tuple[tuple[str, str], ...]
    images_of_run: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads; of many classes only the cells of the confusion matrix with images."""
        is_large = len(self.confusion) > MANY_CLASSES
        values = asdict(replace(self, confusion=()) if is_large else self)
        if is_large:
            counts = np.asarray(self.confusion)
            cells = zip(*np.nonzero(counts), counts[counts != 0], strict=True)
            values["confusion"] = {"cells": [[int(number) for number in cell] for cell in cells]}
        return {key: value for key, value in values.items() if key != "notes" or value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read what `to_json` of this or an earlier release gave.

        Raises:
            KeyError, TypeError: If the values are something else.
        """
        values = _with_current_names(values)
        review = values["review"]
        return cls(
            images=values["images"],
            groups=values["groups"],
            overall=_with_estimates(values["overall"]),
            per_class=tuple(
                ClassResult(item["name"], item["images"], _with_estimates(item["metrics"]))
                for item in values["per_class"]
            ),
            confusion=_confusion_of_json(values["confusion"], len(values["per_class"])),
            review=ReviewRates(**_with_estimates(review)) if review else None,
            thresholds=tuple(ThresholdResult(**_with_estimates(item)) for item in values["thresholds"]),
            unreadable=tuple((path, reason) for path, reason in values["unreadable"]),
            images_of_run=values.get("images_of_run"),
            notes=tuple(values.get("notes", ())),
        )


def evaluate_rows(classifier: Classifier, manifest: Manifest, rows: np.ndarray, on_progress: OnProgress) -> Evaluation:
    """Evaluate on rows (N,) of a data set, read from their files exactly as in prediction.

    Raises:
        DataError: If none of the images can be read, or the classifier does not know a class.
    """
    targets = targets_for(classifier, manifest)[rows]
    predictions: list[Prediction] = []
    found: list[np.ndarray] = []
    for prediction in predict_files(classifier, (manifest.file(int(row)) for row in rows)):
        if prediction.status == "ok":
            # Of many classes, tuples of numbers would take four times the memory.
            found.append(np.array(prediction.probabilities))
        predictions.append(replace(prediction, probabilities=(), candidates=()))
        on_progress(len(predictions), len(rows))
    is_readable = np.array([prediction.status == "ok" for prediction in predictions], dtype=bool)
    if not is_readable.any():
        raise DataError(f"{manifest.root}: none of the {len(rows)} images can be read")
    readable = [prediction for prediction in predictions if prediction.status == "ok"]
    probabilities = np.stack(found)
    scored = score(classifier, probabilities, targets[is_readable], _groups_of_column(manifest, rows[is_readable]))
    out_of_distribution = np.array([prediction.out_of_distribution for prediction in readable], dtype=bool)
    unreadable = tuple((str(item.path), item.reason) for item in predictions if item.status == "error")
    return summarise(classifier, scored, out_of_distribution if classifier.review_policy else None, unreadable)


def evaluate_outputs(classifier: Classifier, outputs: LabelledOutputs, groups: np.ndarray | None) -> Evaluation:
    """Evaluate on outputs that were computed before; `groups` (N,) int as in `Scored`."""
    policy = classifier.review_policy
    out_of_distribution = policy.is_out_of_distribution(outputs.features) if policy else None
    scored = score(classifier, outputs.probabilities, outputs.targets, groups)
    return summarise(classifier, scored, out_of_distribution, unreadable=())


def summarise(
    classifier: Classifier,
    scored: Scored,
    out_of_distribution: np.ndarray | None,
    unreadable: tuple[tuple[str, str], ...],
) -> Evaluation:
    """The evaluation of scored images; `out_of_distribution` (N,) bool, `None` without a review policy."""
    review = None
    if classifier.review_policy and out_of_distribution is not None:
        review = review_rates(classifier.review_policy, out_of_distribution, scored)
    of_all, of_classes = overall_and_per_class(scored)
    images = scored.truth.sum(axis=0).tolist()
    return Evaluation(
        images=len(scored),
        groups=scored.units,
        overall=of_all,
        per_class=tuple(ClassResult(*values) for values in zip(classifier.classes, images, of_classes, strict=True)),
        confusion=_confusion(scored) if classifier.task != "multilabel" else (),
        review=review,
        thresholds=threshold_results(classifier.decision, classifier.classes, scored),
        unreadable=unreadable,
    )


def _confusion(scored: Scored) -> tuple[tuple[int, ...], ...]:
    """The confusion matrix (C, C) of images that have one label each."""
    classes = scored.truth.shape[1]
    pairs = scored.truth.argmax(axis=1) * classes + scored.predicted.argmax(axis=1)
    return tuple(map(tuple, np.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()))


def _confusion_of_json(found: Any, classes: int) -> tuple[tuple[int, ...], ...]:
    """The matrix (C, C) itself, or of its cells: [true class, predicted class, images] of each that has any."""
    if not isinstance(found, Mapping):
        return tuple(tuple(row) for row in found)
    rows = [[0] * classes for _ in range(classes)]
    for true, predicted, images in found["cells"]:
        rows[true][predicted] = images
    return tuple(map(tuple, rows))


def score(
    classifier: Classifier, probabilities: np.ndarray, targets: np.ndarray, groups: np.ndarray | None = None
) -> Scored:
    """Probabilities (N, C) with the labels that the classifier decides on and the targets in its class order."""
    return Scored(
        task=classifier.task,
        probabilities=probabilities.astype(np.float64),
        truth=truth_of(targets, len(classifier.classes)),
        predicted=classifier.decision.labels(probabilities, classifier.task),
        groups=groups,
    )


def gap_to_files(classifier: Classifier, probabilities: np.ndarray, files: Sequence[Path]) -> float:
    """Largest difference between probabilities (N, C) and what the classifier predicts for the N files."""
    predicted = np.array([prediction.probabilities for prediction in predict_files(classifier, files)])
    return float(np.abs(predicted - probabilities).max()) if predicted.shape == probabilities.shape else float("inf")


def targets_for(classifier: Classifier, manifest: Manifest) -> np.ndarray:
    """Targets of a data set in the classifier's class order: (N,) int64, or (N, C) float32 for multilabel.

    Raises:
        DataError: If the classifier does not know a class, or an image has several labels and it predicts one.
    """
    unknown = [name for name in manifest.classes if name not in classifier.classes]
    if unknown:
        raise DataError(
            f"{manifest.root}: the classifier does not know {listed(unknown, MANY)}; "
            f"it was trained on {listed(classifier.classes, MANY)}"
        )
    index_of = {name: index for index, name in enumerate(classifier.classes)}
    labels = manifest.table.column("labels").to_pylist()
    if classifier.task == "multilabel":
        targets = np.zeros((len(labels), len(classifier.classes)), dtype=np.float32)
        for row, names in enumerate(labels):
            targets[row, [index_of[name] for name in names]] = 1.0
        return targets
    several = next((row for row, names in enumerate(labels) if len(names) != 1), None)
    if several is not None:
        raise DataError(
            f"{manifest.file(several)}: has {len(labels[several])} labels; this classifier predicts one label per image"
        )
    return np.array([index_of[names[0]] for names in labels], dtype=np.int64)


def bootstrap_groups(
    manifest: Manifest, rows: np.ndarray, duplicates: Sequence[tuple[int, int]] = ()
) -> np.ndarray | None:
    """Which of these rows are dependent, (N,) int: groups, near-duplicates; `None` where all are independent."""
    groups = groups_of(manifest, rows, duplicates)
    return groups if len(np.unique(groups)) < len(rows) else None


def _groups_of_column(manifest: Manifest, rows: np.ndarray) -> np.ndarray | None:
    """Groups (N,) int by their column; an image without one is independent."""
    names = manifest.column("group")
    if not any(names[row] for row in rows):
        return None
    return np.unique([names[row] or f"row {row}" for row in rows], return_inverse=True)[1]


_NAMES_0_1 = {
    "for_a_person": "review",
    "unsure": "ambiguous",
    "unlike": "out_of_distribution",
    "right_of_rest": "accuracy_of_rest",
    "outcomes": "thresholds",
    "false_alarms": "false_positive_rate",
    "figures": "metrics",
}
"""Keys of an evaluation in release 0.1, and their names today."""


def _with_current_names(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {_NAMES_0_1.get(key, key): _with_current_names(value) for key, value in values.items()}
    return [_with_current_names(value) for value in values] if isinstance(values, list | tuple) else values


def _with_estimates(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with each {value, low, high} as an `Estimate`."""
    return {name: Estimate(**value) if isinstance(value, dict) else value for name, value in values.items()}
