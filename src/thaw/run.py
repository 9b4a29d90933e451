"""One run from its plan to its bundle: begun or resumed, trained phase by phase, evaluated, written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from thaw.backbones import build
from thaw.bundle import write_bundle
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier, outputs_of
from thaw.classifier.head import Head
from thaw.classifier.outputs import LabelledOutputs
from thaw.classifier.review import MAX_TRAIN_FEATURES
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.prepare import Prepared, prepare
from thaw.device import choose_device, describe_machine
from thaw.evaluation.evaluate import LARGEST_GAP, gap_to_files, groups_among
from thaw.evaluation.finalize import SplitOutputs, finalize, outputs_of_rows
from thaw.evaluation.records import write_records
from thaw.evaluation.thresholds import check_requirements
from thaw.features.extract import FeatureCache
from thaw.planning.backbone_choice import choose_backbone
from thaw.planning.costs import GIB, Forecast
from thaw.planning.plan import Plan, plan_run
from thaw.planning.resume import check_same_data, check_same_recipe
from thaw.progress import Reporter
from thaw.recipe import Recipe
from thaw.report import augmentations, model_card, page
from thaw.run_folder import RunFolder
from thaw.seeds import derive_seed
from thaw.terminal import results, run_summary
from thaw.terminal.epochs import EpochTable
from thaw.training import checkpoint
from thaw.training.fit import FitCallbacks, FitSettings, PhaseSources, fit, outputs_at
from thaw.training.gain import phase_gains
from thaw.training.history import EpochRecord, best_index
from thaw.training.loggers import check_loggers, logged_values, open_loggers
from thaw.training.loss import balanced_weights
from thaw.training.phases import PhaseReader, phase_inputs

GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class Trial:
    """A run that is about to train: where it writes, what was decided, and on what."""

    folder: RunFolder
    recipe: Recipe
    prepared: Prepared
    classifier: Classifier


@dataclass
class Stopwatch:
    """Seconds of looking at images and of training each phase, told apart by when a phase asks for its inputs."""

    extraction: float = 0.0
    training: dict[int, float] = field(default_factory=dict)
    _phase: int | None = None
    _since: float = 0.0

    def around(self, sources_of: Callable[[int], PhaseSources]) -> Callable[[int], PhaseSources]:
        """The same function, timed."""

        def timed(index: int) -> PhaseSources:
            self.stop()
            started = time.perf_counter()
            sources = sources_of(index)
            self._phase, self._since = index, time.perf_counter()
            self.extraction += self._since - started
            return sources

        return timed

    def stop(self) -> None:
        """The phase that was training is done."""
        if self._phase is not None:
            self.training[self._phase] = time.perf_counter() - self._since
        self._phase = None


def train_once(dataset: Dataset, asked: Recipe | None, runs: Path, reporter: Reporter, resume: bool = False) -> Trial:
    """One run from its first image to its bundle."""
    started = time.perf_counter()
    this = begin(dataset, asked, runs, resume, reporter)
    reader = make_phase_reader(this, reporter)
    records, stopwatch = train(this, reader, reporter)
    finish(this, reader, records, stopwatch, started, reporter)
    return this


def begin(dataset: Dataset, asked: Recipe | None, runs: Path, resume: bool, reporter: Reporter) -> Trial:
    """A new run that is planned, or the newest unfinished one under `runs` as it stands."""
    folder = RunFolder.latest_unfinished(runs) if resume else None
    saved = folder.read_plan() if folder else None
    if saved:
        began = Recipe.from_values(saved["asked"])
        asked = asked or began
        check_same_recipe(began, asked)
    asked = asked or Recipe()
    device, dataset = choose_device(asked.device).device, dataset.as_task(asked.task)
    previous = _previous(dataset, asked, runs, folder, reporter)
    if folder and saved:
        recipe = Recipe.load(folder.recipe)
        prepared, classifier = prepare_run(dataset, recipe, previous, reporter)
        folder.remove_leftovers()
        check_same_data(Manifest.read(folder.manifest), prepared.manifest)
        reporter.say(f"resuming {folder.path}")
    else:
        check_loggers(asked.loggers)
        check_requirements(asked.decide, dataset.classes)
        decided, prepared, classifier = decide(dataset, asked, previous, reporter)
        folder, recipe = folder or RunFolder.create(runs), decided.recipe
        _write_plan(asked, decided, prepared, folder)
    classifier.to(device)
    return Trial(folder, recipe, prepared, classifier)


def decide(
    dataset: Dataset, asked: Recipe, previous: Manifest | None, reporter: Reporter
) -> tuple[Plan, Prepared, Classifier]:
    """The backbone chosen, the images decoded and divided, everything else planned and shown."""
    chosen = choose_backbone(asked, dataset, previous, cache_folder(), reporter.bar)
    prepared, classifier = prepare_run(dataset, chosen.recipe, previous, reporter)
    decided = plan_run(chosen, prepared, classifier, cache_folder())
    run_summary.show_plan(decided, reporter)
    return decided, prepared, classifier


def prepare_run(
    dataset: Dataset, recipe: Recipe, previous: Manifest | None, reporter: Reporter
) -> tuple[Prepared, Classifier]:
    """The images decoded and divided, and a classifier with a new head for them."""
    backbone = build(recipe)
    spec = backbone.facts.pixels
    prepared = prepare(dataset, spec, recipe.decode, recipe.split, previous, cache_folder(), reporter.bar)
    manifest = prepared.manifest
    run_summary.show_data(manifest, prepared.notes, reporter)
    outputs, seed = outputs_of(manifest.task, manifest.classes), derive_seed(recipe.seed, "head")
    head = Head(backbone.facts.width, outputs, recipe.head.hidden, recipe.head.dropout, seed=seed)
    return prepared, Classifier(backbone, head, manifest.classes, manifest.task, recipe.decode)


def make_phase_reader(run: Trial, reporter: Reporter) -> PhaseReader:
    """What gives each phase of a run its inputs."""
    recipe = run.recipe
    assert recipe.stored_as != "auto" and recipe.cache_gb is not None
    return PhaseReader(
        inputs=phase_inputs(recipe),
        pixels=run.prepared.pixels,
        backbone=run.classifier.backbone,
        engine=recipe.resolved_engine,
        train=run.prepared.rows("train"),
        val=run.prepared.rows("val"),
        test=run.prepared.rows("test"),
        feature_cache=FeatureCache(cache_folder(), recipe.stored_as, int(recipe.cache_gb * GIB)),
        seed=derive_seed(recipe.seed, "views"),
        device=run.classifier.device,
        bar=reporter.bar,
    )


def train(run: Trial, reader: PhaseReader, reporter: Reporter) -> tuple[tuple[EpochRecord, ...], Stopwatch]:
    """Train every phase that is worth it; gives the records of all epochs and the time that this call took."""
    recipe, classifier, stopwatch = run.recipe, run.classifier, Stopwatch()
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(reader.train.targets, len(classifier.classes), classifier.task)
        weights = weights.to(classifier.device)
    settings = FitSettings(
        seed=recipe.seed,
        precision=recipe.resolved_precision,
        monitor=recipe.resolved_monitor,
        class_weights=weights,
        checkpoints=run.folder.checkpoints,
        val_images=len(reader.val.rows),
        target=recipe.target,
    )
    table = EpochTable(recipe.phases, settings.monitor, reporter)
    loggers = open_loggers(recipe, run.folder.path, reporter)
    if saved := checkpoint.read(run.folder.checkpoints, "last"):
        loggers.skip(len(saved.progress.records))

    def on_epoch(records: Sequence[EpochRecord], is_best: bool) -> None:
        loggers.epochs(records)
        run.folder.write_metrics(run_summary.METRICS_HEADER, (run_summary.metrics_row(record) for record in records))
        table.add(records[-1], is_best)

    sources_of = stopwatch.around(reader.sources_of)
    progress = fit(classifier, recipe.phases, sources_of, settings, FitCallbacks(on_epoch, reporter.say))
    stopwatch.stop()
    best = best_index(progress.records, settings.monitor)
    loggers.finish(logged_values(progress.records[best]) if best is not None else {})
    reporter.say(run_summary.best_line(progress.records, settings.monitor))
    run_summary.show_gains(
        phase_gains(progress.records, settings.monitor, settings.val_images), settings.monitor, reporter
    )
    return progress.records, stopwatch


def finish(
    run: Trial,
    reader: PhaseReader,
    records: Sequence[EpochRecord],
    stopwatch: Stopwatch,
    started: float,
    reporter: Reporter,
) -> None:
    """Evaluate, write the bundle, and say what everything took beside what was predicted."""
    manifest, classifier = run.prepared.manifest, run.classifier
    val = manifest.indices("val")
    chosen = np.linspace(0, len(val) - 1, min(GOLDEN_IMAGES, len(val))).astype(int)
    golden = [manifest.file(int(row)) for row in val[chosen]]
    outputs = _outputs(run, reader, {record.phase for record in records}, chosen, golden, reporter)
    finalized = finalize(classifier, outputs, run.recipe.decide, run.recipe.seed)
    for line in finalized.unmet:
        reporter.say(line)
    write_records(classifier, manifest, finalized.sets, run.folder.predictions)
    evaluations = finalized.evaluations
    card = model_card.write(classifier, run.recipe, manifest, evaluations)
    if not run.folder.model.exists():
        write_bundle(classifier, run.folder.model, golden, card)
    saved = run.folder.read_plan() or {}
    names = [phase.name for phase in run.recipe.phases]
    spent = run_summary.Spent(
        seconds=time.perf_counter() - started,
        extraction=stopwatch.extraction,
        extraction_passes=reader.extraction_passes(stopwatch.training),
        phases=tuple((index, names[index], seconds) for index, seconds in stopwatch.training.items()),
        epochs=tuple(sum(record.phase == name for record in records) for name in names),
    )
    run.folder.write_plan({**saved, "actual": asdict(spent), "machine": describe_machine(classifier.device)})
    run.folder.write_evaluation(
        {
            **{split: result.to_json() for split, result in evaluations.items()},
            "calibration": asdict(finalized.calibration),
            "decision": classifier.decision.to_json(),
        }
    )
    results.show_results(run.folder, evaluations, reporter)
    run_summary.show_times(Forecast.from_json(saved["predicted"]), spent, reporter)
    _write_page(run, reporter)


def _write_page(run: Trial, reporter: Reporter) -> None:
    """Leave report.html; whatever is wrong with it, the run is finished and stays so."""
    try:
        page.write_page(run.folder, run.classifier, reporter)
    except Exception as error:  # A page must not cost the hours that the classifier took.
        reporter.say(
            f"{run.folder.report.name} could not be written ({error}); try again: thaw report {run.folder.path}"
        )


def _previous(
    dataset: Dataset, asked: Recipe, runs: Path, folder: RunFolder | None, reporter: Reporter
) -> Manifest | None:
    """The manifest whose split is kept: of the run that resumes, or of the newest one over the same images."""
    if folder and folder.manifest.is_file():
        return Manifest.read(folder.manifest)
    for earlier in RunFolder.earlier(runs):
        manifest = Manifest.read(earlier.manifest)
        if manifest.root == dataset.manifest.root and Recipe.load(earlier.recipe).split == asked.split:
            reporter.say(f"images that {earlier.path} knows keep the split they have there")
            return manifest
    return None


def _write_plan(asked: Recipe, decided: Plan, prepared: Prepared, folder: RunFolder) -> None:
    """Write down what was decided; `plan.json` comes last, so a run that has it can be resumed."""
    augmentations.draw_run(decided.recipe, prepared.manifest, prepared.pixels, folder.augmentations)
    prepared.manifest.write(folder.manifest)
    folder.write_unreadable(prepared.manifest.errors())
    folder.write_recipe(decided.recipe)
    folder.write_plan({"asked": asked.model_dump(mode="json"), **decided.to_json()})


def _outputs(
    run: Trial, reader: PhaseReader, trained: set[str], chosen: np.ndarray, golden: Sequence[Path], reporter: Reporter
) -> SplitOutputs:
    """What the classifier makes of every image: from stored features where they give what the bundle would give."""
    prepared, classifier = run.prepared, run.classifier
    manifest = prepared.manifest
    splits = [split for split in ("val", "test") if len(manifest.indices(split))]
    groups = {split: groups_among(manifest, manifest.indices(split), prepared.duplicates) for split in splits}

    def seen(split: str, rows: np.ndarray) -> LabelledOutputs:
        return outputs_of_rows(classifier, manifest, prepared.pixels, rows, reporter.bar(f"evaluate {split}"))

    rows = manifest.indices("train")
    if final := reader.final_sources(trained):
        stored = {
            name: outputs_at(classifier, final.position, source, "fp32")
            for name, source in (("train", final.train), ("val", final.val), ("test", final.test))
            if len(source)
        }
        train, gap = stored.pop("train"), gap_to_files(classifier, stored["val"].probabilities[chosen], golden)
        if gap <= LARGEST_GAP:
            reporter.say(
                f"evaluated from stored features; on {len(golden)} golden images they give what the bundle gives to "
                f"within {gap:.2g} of probability"
            )
            return SplitOutputs(train, rows, stored, groups)
        reporter.say(f"stored features are off by {gap:.2g} of probability: evaluating from the images instead")
    else:
        rows = rows[np.linspace(0, len(rows) - 1, min(MAX_TRAIN_FEATURES, len(rows))).astype(int)]
        train = seen("train", rows)
    return SplitOutputs(train, rows, {split: seen(split, manifest.indices(split)) for split in splits}, groups)
