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
from thaw.evaluation.metrics import ClassFigures, Estimate, Overall, Scored, overall, per_class, truth_of
from thaw.evaluation.review import ForAPerson, for_a_person
from thaw.evaluation.thresholds import Outcome, outcomes
from thaw.prediction.predict import Prediction, predict_files

LARGEST_GAP = 0.02
"""Probability by which features from a fast engine may differ from the shipped path before they are not believed."""


@dataclass(frozen=True)
class ClassResult:
    """One class: how many images carry it, and its figures."""

    name: str
    images: int
    figures: ClassFigures


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
    overall: Overall
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    for_a_person: ForAPerson | None
    outcomes: tuple[Outcome, ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """What `to_json` gave; raises `KeyError` or `TypeError` for something else."""
        person = values["for_a_person"]
        return cls(
            images=values["images"],
            groups=values["groups"],
            overall=Overall(**_estimates(values["overall"])),
            per_class=tuple(
                ClassResult(item["name"], item["images"], ClassFigures(**_estimates(item["figures"])))
                for item in values["per_class"]
            ),
            confusion=tuple(tuple(row) for row in values["confusion"]),
            for_a_person=ForAPerson(**_estimates(person)) if person else None,
            outcomes=tuple(Outcome(**_estimates(item)) for item in values["outcomes"]),
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
    unlike = np.array([prediction.unlike for prediction in fine], dtype=bool) if classifier.familiar else None
    return summarise(classifier, score(classifier, probabilities, targets[readable], groups), unlike, unreadable)


def evaluate_outputs(classifier: Classifier, outputs: LabelledOutputs, groups: np.ndarray | None) -> Evaluation:
    """Evaluate on what the classifier made of some images."""
    unlike = classifier.familiar.is_unlike(outputs.features) if classifier.familiar else None
    return summarise(classifier, score(classifier, outputs.probabilities, outputs.targets, groups), unlike, ())


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
    classifier: Classifier, scored: Scored, unlike: np.ndarray | None, unreadable: tuple[tuple[str, str], ...]
) -> Evaluation:
    """All figures of scored images; `unlike` (N,) bool says which are unlike anything in training."""
    confusion: tuple[tuple[int, ...], ...] = ()
    if classifier.task != "multilabel":
        counts = scored.truth.astype(int).T @ scored.predicted.astype(int)
        confusion = tuple(tuple(int(count) for count in row) for row in counts)
    person = None
    if classifier.familiar and unlike is not None:
        person = for_a_person(classifier.familiar, unlike, scored)
    return Evaluation(
        images=len(scored),
        groups=len(scored) if scored.groups is None else len(np.unique(scored.groups)),
        overall=overall(scored),
        per_class=tuple(
            ClassResult(name, int(scored.truth[:, index].sum()), figures)
            for index, (name, figures) in enumerate(zip(classifier.classes, per_class(scored), strict=True))
        ),
        confusion=confusion,
        for_a_person=person,
        outcomes=outcomes(classifier.decision, classifier.classes, scored),
        unreadable=unreadable,
    )


def groups_among(manifest: Manifest, rows: np.ndarray, alike: Sequence[tuple[int, int]] = ()) -> np.ndarray | None:
    """Which of some rows belong together, (N,) int; `None` where each stands alone."""
    chosen = set(rows.tolist())
    pairs = [pair for pair in alike if chosen.issuperset(pair)]
    groups = groups_of(manifest, rows, pairs)
    return groups if len(np.unique(groups)) < len(rows) else None


def _estimates(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values in which every estimate is one again."""
    return {name: Estimate(**value) if isinstance(value, dict) else value for name, value in values.items()}


def _given_groups(manifest: Manifest, rows: np.ndarray) -> np.ndarray | None:
    """The groups that the data names; an image without one stands alone."""
    names = manifest.column("group")
    if not any(names[row] for row in rows):
        return None
    return np.unique([names[row] or f"row {row}" for row in rows], return_inverse=True)[1]
