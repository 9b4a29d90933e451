"""How good a classifier is on labelled images: figures with intervals, per class, and what is left to a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.data.manifest import Manifest
from thaw.data.split import groups_of
from thaw.errors import DataError
from thaw.evaluation.metrics import ClassMetrics, Estimate, OverallMetrics, Scored, overall, per_class, truth_of
from thaw.evaluation.review import ReviewRates, review_rates
from thaw.evaluation.thresholds import ThresholdResult, threshold_results
from thaw.prediction.predict import Prediction, predict_files

LARGEST_GAP = 0.02
"""Probability by which features from a fast engine may differ from the shipped path before they are not believed."""


@dataclass(frozen=True)
class ClassResult:
    """One class: how many images carry it, and its figures."""

    name: str
    images: int
    metrics: ClassMetrics


@dataclass(frozen=True)
class Evaluation:
    """Figures over the readable images of one set.

    groups: how many independent groups the images come in, over which intervals are drawn; equal to `images` where each
    stands alone. confusion: images by true class (row) and given class (column), empty for multilabel. for_a_person:
    `None` where the classifier has no borders. outcomes: what each threshold of its decision does. unreadable: (path,
    reason) of images left out.
    """

    images: int
    groups: int
    overall: OverallMetrics
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    review: ReviewRates | None
    thresholds: tuple[ThresholdResult, ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """What `to_json` gave, or release 0.1; raises `KeyError` or `TypeError` for something else."""
        values = _renamed(values)
        review = values["review"]
        return cls(
            images=values["images"],
            groups=values["groups"],
            overall=OverallMetrics(**_estimates(values["overall"])),
            per_class=tuple(
                ClassResult(item["name"], item["images"], ClassMetrics(**_estimates(item["metrics"])))
                for item in values["per_class"]
            ),
            confusion=tuple(tuple(row) for row in values["confusion"]),
            review=ReviewRates(**_estimates(review)) if review else None,
            thresholds=tuple(ThresholdResult(**_estimates(item)) for item in values["thresholds"]),
            unreadable=tuple((path, reason) for path, reason in values["unreadable"]),
        )


def evaluate_rows(
    classifier: Classifier, manifest: Manifest, rows: np.ndarray, on_progress: Callable[[int, int], None]
) -> Evaluation:
    """Evaluate on some rows of a data set from the files, through the very path that predicts.

    Raises `DataError` when none of them can be read.
    """
    targets = targets_for(classifier, manifest)[rows]
    predictions: list[Prediction] = []
    for prediction in predict_files(classifier, (manifest.file(int(row)) for row in rows)):
        predictions.append(prediction)
        on_progress(len(predictions), len(rows))
    readable = np.array([prediction.status == "ok" for prediction in predictions], dtype=bool)
    if not readable.any():
        raise DataError(f"{manifest.root}: none of the {len(rows)} images can be read")
    fine = [prediction for prediction in predictions if prediction.status == "ok"]
    unreadable = tuple((str(item.path), item.reason) for item in predictions if item.status == "error")
    probabilities = np.array([prediction.probabilities for prediction in fine])
    groups = _given_groups(manifest, rows[readable])
    out_of_distribution = (
        np.array([prediction.out_of_distribution for prediction in fine], dtype=bool)
        if classifier.review_policy
        else None
    )
    return summarise(
        classifier, score(classifier, probabilities, targets[readable], groups), out_of_distribution, unreadable
    )


def evaluate_outputs(classifier: Classifier, outputs: LabelledOutputs, groups: np.ndarray | None) -> Evaluation:
    """Evaluate on what the classifier made of some images."""
    out_of_distribution = (
        classifier.review_policy.is_out_of_distribution(outputs.features) if classifier.review_policy else None
    )
    return summarise(
        classifier, score(classifier, outputs.probabilities, outputs.targets, groups), out_of_distribution, ()
    )


def score(
    classifier: Classifier, probabilities: np.ndarray, targets: np.ndarray, groups: np.ndarray | None = None
) -> Scored:
    """Probabilities (N, C) with the labels that the classifier gives them, beside the targets in its class order."""
    return Scored(
        task=classifier.task,
        probabilities=probabilities.astype(np.float64),
        truth=truth_of(targets, len(classifier.classes)),
        predicted=classifier.decision.labels(probabilities, classifier.task),
        groups=groups,
    )


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
    classifier: Classifier,
    scored: Scored,
    out_of_distribution: np.ndarray | None,
    unreadable: tuple[tuple[str, str], ...],
) -> Evaluation:
    """All figures of scored images; `out_of_distribution` (N,) bool says which are unlike anything in training."""
    confusion: tuple[tuple[int, ...], ...] = ()
    if classifier.task != "multilabel":
        counts = scored.truth.astype(int).T @ scored.predicted.astype(int)
        confusion = tuple(tuple(int(count) for count in row) for row in counts)
    person = None
    if classifier.review_policy and out_of_distribution is not None:
        person = review_rates(classifier.review_policy, out_of_distribution, scored)
    return Evaluation(
        images=len(scored),
        groups=len(scored) if scored.groups is None else len(np.unique(scored.groups)),
        overall=overall(scored),
        per_class=tuple(
            ClassResult(name, int(scored.truth[:, index].sum()), figures)
            for index, (name, figures) in enumerate(zip(classifier.classes, per_class(scored), strict=True))
        ),
        confusion=confusion,
        review=person,
        thresholds=threshold_results(classifier.decision, classifier.classes, scored),
        unreadable=unreadable,
    )


def groups_among(manifest: Manifest, rows: np.ndarray, duplicates: Sequence[tuple[int, int]] = ()) -> np.ndarray | None:
    """Which of some rows belong together, (N,) int; `None` where each stands alone."""
    chosen = set(rows.tolist())
    pairs = [pair for pair in duplicates if chosen.issuperset(pair)]
    groups = groups_of(manifest, rows, pairs)
    return groups if len(np.unique(groups)) < len(rows) else None


_NAMES_0_1 = {
    "for_a_person": "review",
    "unsure": "ambiguous",
    "unlike": "out_of_distribution",
    "right_of_rest": "accuracy_of_rest",
    "outcomes": "thresholds",
    "false_alarms": "false_positive_rate",
    "figures": "metrics",
}
"""What release 0.1 called the keys of an evaluation."""


def _renamed(values: Any) -> Any:
    """The same values under today's keys."""
    if isinstance(values, Mapping):
        return {_NAMES_0_1.get(key, key): _renamed(value) for key, value in values.items()}
    return [_renamed(value) for value in values] if isinstance(values, list | tuple) else values


def _estimates(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values in which every estimate is one again."""
    return {name: Estimate(**value) if isinstance(value, dict) else value for name, value in values.items()}


def _given_groups(manifest: Manifest, rows: np.ndarray) -> np.ndarray | None:
    """The groups that the data names; an image without one stands alone."""
    names = manifest.column("group")
    if not any(names[row] for row in rows):
        return None
    return np.unique([names[row] or f"row {row}" for row in rows], return_inverse=True)[1]
