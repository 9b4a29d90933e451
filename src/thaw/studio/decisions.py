"""What another decision would do to a finished run, on validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.data.manifest import Manifest
from thaw.evaluation.decide import Decided, decide
from thaw.evaluation.records import Records, read_records
from thaw.evaluation.review import ReviewRates, review_rates
from thaw.evaluation.thresholds import decided
from thaw.metrics import ClassRates, Estimate, Scored, rates_of_classes
from thaw.recipe import DecisionSettings
from thaw.run_folder import RunFolder
from thaw.studio.images import Images
from thaw.studio.project import Project
from thaw.studio.run_classifier import classifier_of
from thaw.studio.slices import Slice, extra_columns, slices


@dataclass(frozen=True)
class ClassOutcome:
    """One class on a set of images: how many there are, how many others are taken for it, and rates with intervals."""

    images: int
    false_positives: int
    rates: ClassRates


@dataclass(frozen=True)
class Outcome:
    """What a decision gives on a set of images.

    Attributes:
        images: Number of images.
        accuracy: On all of them.
        classes: One per class.
        flagged: Number of images that are flagged for review.
        flagged_rate: Their fraction.
        review: Rates of the review policy; `None` for a classifier without one.
    """

    images: int
    accuracy: Estimate | None
    classes: tuple[ClassOutcome, ...]
    flagged: int
    flagged_rate: Estimate | None
    review: ReviewRates | None


@dataclass(frozen=True)
class Foreseen:
    """What settings would do to a run: the decision, its outcome by split, and the slices of the last split."""

    classes: tuple[str, ...]
    decided: Decided
    outcomes: dict[str, Outcome]
    slices: list[Slice]


def foresee(run: RunFolder, settings: DecisionSettings, project: Project, images: Images) -> Foreseen:
    """Decide with some settings and look at the outcome; nothing is written.

    Args:
        run: A finished run.
        settings: As for `thaw.decide`; with none, the outcome of the run as it is.
        project: Whose table may have extra columns.
        images: Of the project.

    Raises:
        RecipeError: A class does not exist.
        DataError: A file of the run is damaged.
        BundleError: The bundle of the run is damaged.
    """
    classifier, manifest = classifier_of(run), Manifest.read(run.manifest)
    splits = [split for split in ("val", "test") if len(manifest.indices(split))]
    records = {split: read_records(run.predictions, split) for split in splits}
    chosen = decide(classifier, settings, records["val"])
    scored = {split: decided(chosen.decision, one.scored) for split, one in records.items()}
    outcomes = {split: _outcome(chosen, records[split], scored[split]) for split in splits}
    last = splits[-1]
    here = images.rows_of(manifest)
    rows = [here.get(path) for path in records[last].paths]
    return Foreseen(classifier.classes, chosen, outcomes, slices(extra_columns(project, images), rows, scored[last]))


def _outcome(chosen: Decided, records: Records, scored: Scored) -> Outcome:
    policy, flagged, review = chosen.review_policy, np.zeros(len(scored), bool), None
    if policy:
        is_far = policy.exceeds_max_distance(records.distance)
        flagged = policy.is_ambiguous(scored.probabilities, scored.predicted) | is_far
        review = review_rates(policy, is_far, scored)
    accuracy, flagged_rate = scored.fractions(scored.correct, flagged)
    images, false_positives = scored.truth.sum(axis=0), (scored.predicted & ~scored.truth).sum(axis=0)
    rates = rates_of_classes(scored, list(range(len(images))))
    return Outcome(
        images=len(scored),
        accuracy=accuracy,
        classes=tuple(map(ClassOutcome, images.tolist(), false_positives.tolist(), rates)),
        flagged=int(flagged.sum()),
        flagged_rate=flagged_rate,
        review=review,
    )
