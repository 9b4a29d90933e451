"""What the page of a run says: one tree of plain values read from the run's files, and no drawing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from thaw.bundle import digest_of
from thaw.classifier.classifier import Classifier
from thaw.data.manifest import SPLITS, Manifest
from thaw.errors import DataError
from thaw.evaluation.calibration import Bin, Calibration, apply_temperature, reliability
from thaw.evaluation.evaluate import ClassResult, Evaluation
from thaw.evaluation.records import read_records
from thaw.metrics import METRICS, Estimate, Scored
from thaw.planning.measurements import Choice
from thaw.progress import OnProgress
from thaw.recipe import Monitor, Task
from thaw.report.album import Album, folder_of
from thaw.report.images import Shown, show
from thaw.report.thresholds import ThresholdCurve, threshold_curves
from thaw.report.verdict import Judged, Verdict, class_to_find, verdict
from thaw.run_folder import PlanFile, RunFolder
from thaw.terminal.training import Duration, durations
from thaw.training.gain import PhaseGain, phase_gains
from thaw.training.history import EpochRecord, best_index

PICTURE_BUDGET = 3_000_000
"""Characters that all pictures of the page may take."""

MOST_CLASSES, MOST_UNREADABLE = 100, 50


@dataclass(frozen=True)
class KeyMetric:
    """One figure of the set that counts, and of validation where that is another one."""

    name: str
    about: str
    value: Estimate | None
    validation: Estimate | None


@dataclass(frozen=True)
class Training:
    """Every epoch, which of them was best (`None` for none), and what each phase was worth."""

    records: tuple[EpochRecord, ...]
    monitor: Monitor
    best: int | None
    worth: tuple[PhaseGain, ...]


@dataclass(frozen=True)
class Calibrated:
    """The temperature, the calibration error of the set that counts, and its answers in bins, before and after."""

    temperature: float
    images: int
    errors: tuple[Estimate, Estimate]
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]


@dataclass(frozen=True)
class Data:
    """Readable images of each class in each split, of the first `MOST_CLASSES` classes, and what could not be read.

    folder: where all images lie.
    """

    folder: str
    splits: tuple[str, ...]
    counts: tuple[tuple[str, tuple[int, ...]], ...]
    totals: tuple[int, ...]
    classes: int
    unreadable: tuple[tuple[str, str], ...]
    unreadable_total: int


@dataclass(frozen=True)
class Origin:
    """What it takes to make the run again, and where its classifier lies."""

    version: str
    seed: int
    facts: tuple[tuple[str, str], ...]
    recipe: str
    run: str
    bundle: str
    weights_sha256: str
    bundle_sha256: str


@dataclass(frozen=True)
class Content:
    """Everything on the page; `split` is the set that counts, "test" or, where there is none, "val"."""

    title: str
    about: str
    task: Task
    split: str
    verdict: Verdict
    figures: tuple[KeyMetric, ...]
    choices: tuple[Choice, ...]
    training: Training
    classes: tuple[ClassResult, ...]
    sought: str | None
    calibrated: Calibrated
    thresholds: tuple[ThresholdCurve, ...]
    shown: Shown
    data: Data
    times: tuple[Duration, ...]
    origin: Origin


def read_content(run: RunFolder, classifier: Classifier, on_progress: OnProgress | None = None) -> Content:
    """Everything that the files of a finished run tell; raises `DataError` where they are not those of one.

    Memory grows with the table of predictions, and not with the pixels of the images.
    """
    try:
        evaluated, plan = run.read_evaluation(), run.read_plan()
        if plan is None or plan.actual is None:
            raise ValueError("plan.json is missing or has no actual times")
        epochs = run.read_epochs()
        origin = _origin(run, classifier, plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run.path}: cannot be read as a finished run ({error!r})") from error
    evaluations, calibration = evaluated.evaluations, evaluated.calibration
    recipe, manifest = run.read_recipe(), Manifest.read(run.manifest)
    judged = Judged(evaluations, {split: read_records(run.predictions, split) for split in evaluations})
    sought, monitor = class_to_find(classifier.decision, manifest), recipe.monitor
    folder = folder_of(manifest.column("path"))
    album = Album(classifier, manifest.root, folder, PICTURE_BUDGET)
    return Content(
        title=manifest.root.name or str(manifest.root),
        about=_about(run, classifier, judged),
        task=manifest.task,
        split=judged.split,
        verdict=verdict(judged, classifier.decision, sought, monitor),
        figures=_figures(judged),
        choices=plan.choices,
        training=Training(
            epochs, monitor, best_index(epochs, monitor), phase_gains(epochs, monitor, evaluations["val"].images)
        ),
        classes=_weakest_first(judged.evaluation),
        sought=None if sought is None else classifier.classes[sought],
        calibrated=_calibrated(calibration, judged),
        thresholds=threshold_curves(judged, classifier.decision, sought),
        shown=show(judged, manifest, album, on_progress),
        data=_data(manifest, folder),
        times=durations(plan.predicted, plan.actual),
        origin=origin,
    )


def _about(run: RunFolder, classifier: Classifier, judged: Judged) -> str:
    finished = datetime.fromtimestamp(run.evaluation.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    images = sum(evaluation.images for evaluation in judged.evaluations.values())
    return (
        f"{run.path.name}: {classifier.backbone.facts.architecture}, {classifier.task}, "
        f"{len(classifier.classes)} classes, judged on {images:,} images, finished {finished}"
    )


def _figures(judged: Judged) -> tuple[KeyMetric, ...]:
    validation = judged.evaluations["val"].overall if judged.split == "test" else {}
    return tuple(
        KeyMetric(metric.title, metric.description, judged.evaluation.overall.get(name), validation.get(name))
        for name, metric in METRICS.items()
        if metric.kind == "fraction"
    )


def _weakest_first(evaluation: Evaluation) -> tuple[ClassResult, ...]:
    """The classes in their order; where they are too many, those with the lowest F1."""
    if len(evaluation.per_class) <= MOST_CLASSES:
        return evaluation.per_class

    def f1(item: ClassResult) -> float:
        found = item.metrics.get("f1")
        return found.value if found else 2.0

    return tuple(sorted(evaluation.per_class, key=f1)[:MOST_CLASSES])


def _calibrated(calibration: Calibration, judged: Judged) -> Calibrated:
    scored, split = judged.record.scored, judged.split
    raw = apply_temperature(scored.probabilities, 1 / calibration.temperature, scored.task)
    return Calibrated(
        calibration.temperature,
        calibration.images,
        (calibration.before[split], calibration.after[split]),
        reliability(Scored(scored.task, raw, scored.truth, scored.predicted, scored.groups)),
        reliability(scored),
    )


def _data(manifest: Manifest, folder: str) -> Data:
    counts, errors = manifest.counts(), manifest.errors()
    splits = tuple(split for split in SPLITS if len(manifest.indices(split)))
    return Data(
        folder=str(manifest.root / folder),
        splits=splits,
        counts=tuple(
            (name, tuple(counts[name][split] for split in splits)) for name in manifest.classes[:MOST_CLASSES]
        ),
        totals=tuple(len(manifest.indices(split)) for split in splits),
        classes=len(manifest.classes),
        unreadable=tuple(errors[:MOST_UNREADABLE]),
        unreadable_total=len(errors),
    )


def _origin(run: RunFolder, classifier: Classifier, plan: PlanFile) -> Origin:
    config = json.loads((run.model / "config.json").read_text(encoding="utf-8"))
    sums = (run.model / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in sums)}
    facts = classifier.backbone.facts
    return Origin(
        version=config["thaw"]["version"],
        seed=plan.requested.seed,
        facts=(*plan.machine.items(), ("pre-trained weights", f"{facts.origin} (licence: {facts.license})")),
        recipe=run.recipe.read_text(encoding="utf-8"),
        run=str(run.path),
        bundle=str(run.model),
        weights_sha256=digests["model.safetensors"],
        bundle_sha256=digest_of(run.model),
    )
