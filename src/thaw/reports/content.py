"""Content of a report as one tree of plain values, read from the files of a run; nothing is drawn here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from thaw.bundle import digest_of
from thaw.classifier.classifier import Classifier
from thaw.data.manifest import SPLITS, Manifest
from thaw.errors import DataError
from thaw.evaluation.calibration import Bin, Calibration, apply_temperature, reliability
from thaw.evaluation.evaluate import ClassResult, Evaluation
from thaw.evaluation.records import read_records
from thaw.formats import count
from thaw.metrics import METRICS, Estimate, Scored
from thaw.planning.measurements import Choice
from thaw.progress import OnProgress
from thaw.recipe import KeepPhase, Monitor, ResolvedRecipe, Task
from thaw.remote import shown
from thaw.reports.album import Album, common_folder
from thaw.reports.images import ReportImages, read_images
from thaw.reports.results import Results
from thaw.reports.thresholds import ThresholdCurve, threshold_curves
from thaw.reports.verdict import Verdict, find_class_of_interest, verdict
from thaw.run_folder import PlanFile, RunFolder
from thaw.terminal.training import Duration, durations
from thaw.training.gain import KeepRule, PhaseGain, kept_index, phase_gains
from thaw.training.history import EpochRecord
from thaw.training.skipping import SkippedPhase

THUMBNAIL_BUDGET = 3_000_000
"""Characters that all thumbnails of the page may take."""

MAX_CLASSES, MAX_UNREADABLE = 100, 50


@dataclass(frozen=True)
class KeyMetric:
    """A metric of the reported split, and of validation where that is another split."""

    name: str
    description: str
    value: Estimate | None
    validation: Estimate | None


@dataclass(frozen=True)
class Training:
    """All epochs, the position of the one that is kept, the gain of each phase, and the phases that were skipped."""

    records: tuple[EpochRecord, ...]
    monitor: Monitor
    keep_phase: KeepPhase
    kept: int | None
    gains: tuple[PhaseGain, ...]
    skipped: tuple[SkippedPhase, ...]


@dataclass(frozen=True)
class CalibrationSummary:
    """Temperature scaling, and its effect on the reported split.

    Attributes:
        images: Validation images that the temperature was fitted on.
        error_before, error_after: Calibration error, 0..1.
        bins_before, bins_after: Reliability diagrams.
    """

    temperature: float
    images: int
    error_before: Estimate
    error_after: Estimate
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]


@dataclass(frozen=True)
class DataSummary:
    """The data of the run.

    Attributes:
        folder: Where all images lie.
        counts: Readable images of a class in each of `splits`, for the first `MAX_CLASSES` of all `classes`.
        totals: Readable images in each of `splits`.
        unreadable: (path, reason) of the first `MAX_UNREADABLE` of all `unreadable_total` unreadable files.
    """

    folder: str
    splits: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    totals: tuple[int, ...]
    classes: int
    unreadable: tuple[tuple[str, str], ...]
    unreadable_total: int


@dataclass(frozen=True)
class Provenance:
    """What reproduces the run and identifies its classifier.

    Attributes:
        facts: Machine, versions of libraries, and pre-trained weights.
        recipe: The resolved recipe as YAML.
        run, bundle: Folders.
    """

    version: str
    seed: int
    facts: Mapping[str, str]
    recipe: str
    run: str
    bundle: str
    weights_sha256: str
    bundle_sha256: str


@dataclass(frozen=True)
class Content:
    """Everything in a report.

    Attributes:
        split: The reported split, "test", or "val" without a test set.
        metrics: Key metrics of that split.
        choices: Every setting that planning resolved, with its reason.
        classes: Metrics of each class, of at most `MAX_CLASSES` those with the lowest F1.
        class_of_interest: The class that the classifier is meant to find, if there is one.
        times: Predicted and actual time of each part of the run.
    """

    title: str
    subtitle: str
    task: Task
    split: str
    verdict: Verdict
    metrics: tuple[KeyMetric, ...]
    choices: tuple[Choice, ...]
    training: Training
    classes: tuple[ClassResult, ...]
    class_of_interest: str | None
    calibration: CalibrationSummary
    thresholds: tuple[ThresholdCurve, ...]
    images: ReportImages
    data: DataSummary
    times: tuple[Duration, ...]
    provenance: Provenance


def read_content(run: RunFolder, classifier: Classifier, on_progress: OnProgress | None = None) -> Content:
    """Read the content of a report from the files of a run.

    Memory grows with the table of predictions, not with the pixels of the images.

    Args:
        run: Folder of the run.
        classifier: Classifier of the run.
        on_progress: Called with the number of images read, and of all to read.

    Raises:
        DataError: The files are not those of a finished run.
    """
    try:
        evaluated, plan = run.read_evaluation(), run.read_plan()
        if "val" not in evaluated.evaluations:
            raise DataError(
                f"{run.path}: was trained on its validation images, so it has no report; its metrics are in "
                f"{run.model / 'MODEL_CARD.md'}"
            )
        if plan is None or plan.actual is None:
            raise ValueError("plan.json is missing or has no actual times")
        epochs = run.read_epochs()
        provenance = _provenance(run, classifier, plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run.path}: cannot be read as a finished run ({error!r})") from error
    evaluations, recipe, manifest = evaluated.evaluations, run.read_recipe(), Manifest.read(run.manifest)
    records = {split: read_records(run.predictions, split) for split in evaluations}
    results = Results(evaluations, records, plan.estimates)
    index_of_interest, monitor = find_class_of_interest(classifier.decision, manifest), recipe.monitor
    gains = plan.gains or phase_gains(epochs, KeepRule(monitor, evaluations["val"].images, recipe.keep_phase))
    folder = common_folder(manifest.column("path"))
    album = Album(classifier, manifest.root, folder, THUMBNAIL_BUDGET)
    return Content(
        title=manifest.root.name or str(manifest.root),
        subtitle=_subtitle(run, recipe, results),
        task=manifest.task,
        split=results.split,
        verdict=verdict(results, classifier.decision, index_of_interest, monitor),
        metrics=_key_metrics(results),
        choices=plan.choices,
        training=Training(
            records=epochs,
            monitor=monitor,
            keep_phase=recipe.keep_phase,
            kept=kept_index(epochs, gains, monitor),
            gains=gains,
            skipped=plan.skipped,
        ),
        classes=_weakest_classes(results.evaluation),
        class_of_interest=None if index_of_interest is None else classifier.classes[index_of_interest],
        calibration=_calibration_summary(evaluated.calibration, results),
        thresholds=threshold_curves(results, classifier.decision, index_of_interest),
        images=read_images(results, manifest, album, on_progress),
        data=_data_summary(manifest, folder),
        times=durations(plan.predicted, plan.actual),
        provenance=provenance,
    )


def _subtitle(run: RunFolder, recipe: ResolvedRecipe, results: Results) -> str:
    finished = datetime.fromtimestamp(run.evaluation.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    images = sum(evaluation.images for evaluation in results.evaluations.values())
    return (
        f"{run.path.name}: {Path(recipe.backbone).name}, {recipe.task}, "
        f"{count(len(results.record.classes), 'class', 'classes')}, evaluated on {count(images, 'image')}, "
        f"finished {finished}"
    )


def _key_metrics(results: Results) -> tuple[KeyMetric, ...]:
    validation = results.evaluations["val"].overall if results.split == "test" else {}
    return tuple(
        KeyMetric(metric.title, metric.description, results.evaluation.overall.get(name), validation.get(name))
        for name, metric in METRICS.items()
        if metric.kind == "fraction"
    )


def _weakest_classes(evaluation: Evaluation) -> tuple[ClassResult, ...]:
    """The classes in their order; of too many, those with the lowest F1."""
    if len(evaluation.per_class) <= MAX_CLASSES:
        return evaluation.per_class

    def f1(item: ClassResult) -> float:
        estimate = item.metrics.get("f1")
        return estimate.value if estimate else 2.0

    return tuple(sorted(evaluation.per_class, key=f1)[:MAX_CLASSES])


def _calibration_summary(calibration: Calibration, results: Results) -> CalibrationSummary:
    scored, split = results.record.scored, results.split
    raw = apply_temperature(scored.probabilities, 1 / calibration.temperature, scored.task)
    return CalibrationSummary(
        temperature=calibration.temperature,
        images=calibration.images,
        error_before=calibration.before[split],
        error_after=calibration.after[split],
        bins_before=reliability(Scored(scored.task, raw, scored.truth, scored.predicted, scored.groups)),
        bins_after=reliability(scored),
    )


def _data_summary(manifest: Manifest, folder: str) -> DataSummary:
    counts, errors = manifest.counts(), manifest.errors()
    splits = tuple(split for split in SPLITS if len(manifest.indices(split)))
    return DataSummary(
        folder=shown(manifest.root / folder),
        splits=splits,
        counts={name: tuple(counts[name][split] for split in splits) for name in manifest.classes[:MAX_CLASSES]},
        totals=tuple(len(manifest.indices(split)) for split in splits),
        classes=len(manifest.classes),
        unreadable=tuple(errors[:MAX_UNREADABLE]),
        unreadable_total=len(errors),
    )


def _provenance(run: RunFolder, classifier: Classifier, plan: PlanFile) -> Provenance:
    config = json.loads((run.model / "config.json").read_text(encoding="utf-8"))
    sums = (run.model / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in sums)}
    facts = classifier.backbone.facts
    return Provenance(
        version=config["thaw"]["version"],
        seed=plan.requested.seed,
        facts={**plan.machine, "pre-trained weights": f"{facts.origin} (licence: {facts.license})"},
        recipe=run.recipe.read_text(encoding="utf-8"),
        run=str(run.path),
        bundle=str(run.model),
        weights_sha256=digests["model.safetensors"],
        bundle_sha256=digest_of(run.model),
    )
