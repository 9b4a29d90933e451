"""The story in a few calls: prepare the data, plan, look once, train phase by phase, keep the best, evaluate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from thaw import atomic
from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.classifier.bundle import read_bundle, write_bundle
from thaw.classifier.classifier import Classifier, outputs_of
from thaw.classifier.head import Head
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import Prepared, prepare
from thaw.device import choose_device, derive_seed, keep_freed_memory, worker_count
from thaw.errors import RecipeError
from thaw.evaluation.evaluate import LARGEST_GAP, Evaluation, evaluate_rows, evaluate_stored, gap_to_files
from thaw.features.extract import Shelf
from thaw.planning.costs import GIB
from thaw.planning.inspection import Inspection, inspect_images
from thaw.planning.measure import measure_run
from thaw.planning.plan import Plan, make_plan
from thaw.planning.resume import check_same_data, check_same_recipe
from thaw.progress import Silent, Terminal, Watcher
from thaw.recipe import Recipe
from thaw.report import augmentations, inspection_page, model_card, summary
from thaw.run_folder import InspectionFolder, RunFolder, bundle_of, cache_folder
from thaw.training.fit import FitSettings, Watch, fit
from thaw.training.history import EpochRecord
from thaw.training.loss import balanced_weights
from thaw.training.phases import PhaseReader, phase_inputs

GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class Run:
    """A run that is about to train: where it writes, what was decided, and on what."""

    folder: RunFolder
    recipe: Recipe
    prepared: Prepared
    classifier: Classifier


def finetune(
    dataset: Dataset,
    recipe: Recipe | None = None,
    runs: str | Path = "runs",
    resume: bool = False,
    watch: Watcher | None = None,
) -> Classifier:
    """Plan, train every phase, keep the best, evaluate, and leave a run folder with the bundle under `runs`.

    With `resume` the newest unfinished run under `runs` goes on; without a `recipe` that is the one it began with.
    Raises a `ThawError` in one sentence for anything that a person can mend.
    """
    keep_freed_memory()
    watch = watch or Terminal()
    started = time.perf_counter()
    try:
        run = _begin(dataset, recipe, Path(runs), resume, watch)
        reader = _reader(run, watch)
        training = _train(run, reader, watch)
        _finish(run, reader, started, training, watch)
        return run.classifier
    finally:
        watch.close()


def load(path: str | Path) -> Classifier:
    """The classifier of a finished run or of a bundle."""
    keep_freed_memory()
    return read_bundle(bundle_of(Path(path)))


def evaluate(classifier: Classifier, dataset: Dataset, watch: Watcher | None = None) -> Evaluation:
    """Metrics of a classifier on every image of a labelled data set."""
    keep_freed_memory()
    watch = watch or Silent()
    try:
        return evaluate_rows(classifier, dataset.manifest, np.arange(len(dataset)), watch.bar("evaluate"))
    finally:
        watch.close()


def inspect(
    dataset: Dataset, recipe: Recipe | None = None, runs: str | Path = "runs", watch: Watcher | None = None
) -> Inspection:
    """Measure a data set through a backbone before any training, and leave a page and a JSON file under `runs`.

    The backbone, its weights, size, device and engine are those of the `recipe`. Raises a `ThawError` in one sentence
    for anything that a person can mend.
    """
    keep_freed_memory()
    asked, watch = recipe or Recipe(), watch or Terminal()
    try:
        dataset = dataset.as_task(asked.task)
        backbone = build(asked.backbone, asked.weights, asked.preprocessing, asked.head.pooling, asked.seed)
        cache, bar = cache_folder(), watch.bar("decode every image once")
        spec, workers = backbone.facts.pixels, worker_count()
        pixels = PixelStore.open_or_build(dataset.manifest, spec, asked.decode, cache, workers, bar)
        found = inspect_images(asked, pixels.describe(dataset.manifest), pixels, backbone, cache, watch.bar)
        folder = InspectionFolder.create(Path(runs))
        folder.write(inspection_page.write_page(found, pixels), inspection_page.to_json(found))
        summary.show_inspection(found, folder, watch)
        return found
    finally:
        watch.close()


def plan(
    dataset: Dataset, recipe: Recipe | None = None, out: str | Path = "recipe.yaml", watch: Watcher | None = None
) -> Plan:
    """Decide everything that `finetune` would decide, show it with its reasons, and write it to `out` as a recipe.

    Decodes and measures, and trains nothing. Raises `RecipeError` when `out` is there already, and a `ThawError` in one
    sentence for anything else that a person can mend.
    """
    keep_freed_memory()
    asked, watch, file = recipe or Recipe(), watch or Terminal(), Path(out)
    if file.exists():
        raise RecipeError(f"{file}: is there already; remove it or name another file with --out")
    if not file.parent.is_dir():
        raise RecipeError(f"{file}: there is no folder {file.parent}")
    try:
        prepared, classifier = _prepare(dataset.as_task(asked.task), asked, None, watch)
        decided = make_plan(asked, measure_run(asked, prepared, classifier, cache_folder()))
        summary.show_plan(decided, watch)
        atomic.write_text(file, decided.recipe.to_yaml())
        watch.say(f"recipe {file}: edit it, and run it with `thaw train DATA --recipe {file}`")
        return decided
    finally:
        watch.close()


def _begin(dataset: Dataset, asked: Recipe | None, runs: Path, resume: bool, watch: Watcher) -> Run:
    folder = RunFolder.latest_unfinished(runs) if resume else None
    saved = folder.read_plan() if folder else None
    if saved:
        began = Recipe.from_values(saved["asked"])
        asked = asked or began
        check_same_recipe(began, asked)
    asked = asked or Recipe()
    device, dataset = choose_device(asked.device).device, dataset.as_task(asked.task)
    prepared, classifier = _prepare(dataset, asked, _previous(dataset, asked, runs, folder, watch), watch)
    if folder and saved:
        folder.remove_leftovers()
        check_same_data(Manifest.read(folder.manifest), prepared.manifest)
        recipe = Recipe.load(folder.recipe)
        watch.say(f"resuming {folder.path}")
    else:
        folder = folder or RunFolder.create(runs)
        recipe = _plan(asked, prepared, classifier, folder, watch)
    classifier.to(device)
    return Run(folder, recipe, prepared, classifier)


def _previous(dataset: Dataset, asked: Recipe, runs: Path, folder: RunFolder | None, watch: Watcher) -> Manifest | None:
    """The manifest whose split is kept: of the run that resumes, or of the newest one over the same images."""
    if folder and folder.manifest.is_file():
        return Manifest.read(folder.manifest)
    for earlier in RunFolder.earlier(runs):
        manifest = Manifest.read(earlier.manifest)
        if manifest.root == dataset.manifest.root and Recipe.load(earlier.recipe).split == asked.split:
            watch.say(f"images that {earlier.path} knows keep the split they have there")
            return manifest
    return None


def _prepare(dataset: Dataset, asked: Recipe, previous: Manifest | None, watch: Watcher) -> tuple[Prepared, Classifier]:
    """The images decoded and divided, and a classifier with a new head for them."""
    backbone = build(asked.backbone, asked.weights, asked.preprocessing, asked.head.pooling, asked.seed)
    spec = backbone.facts.pixels
    prepared = prepare(dataset, spec, asked.decode, asked.split, previous, cache_folder(), watch.bar)
    summary.show_data(prepared.manifest, prepared.notes, watch)
    return prepared, _new_classifier(asked, prepared, backbone)


def _new_classifier(recipe: Recipe, prepared: Prepared, backbone: Backbone) -> Classifier:
    manifest = prepared.manifest
    head = Head(
        backbone.facts.width,
        outputs_of(manifest.task, manifest.classes),
        recipe.head.hidden,
        recipe.head.dropout,
        seed=derive_seed(recipe.seed, "head"),
    )
    return Classifier(backbone, head, manifest.classes, manifest.task, recipe.decode)


def _plan(asked: Recipe, prepared: Prepared, classifier: Classifier, folder: RunFolder, watch: Watcher) -> Recipe:
    """Decide everything, show it, and write it down; `plan.json` comes last, so a run that has it can be resumed."""
    decided = make_plan(asked, measure_run(asked, prepared, classifier, cache_folder()))
    summary.show_plan(decided, watch)
    augmentations.draw_run(decided.recipe, prepared.manifest, prepared.pixels, folder.augmentations)
    prepared.manifest.write(folder.manifest)
    folder.write_unreadable(prepared.manifest.errors())
    folder.write_recipe(decided.recipe)
    folder.write_plan({"asked": asked.model_dump(mode="json"), **decided.to_json()})
    return decided.recipe


def _reader(run: Run, watch: Watcher) -> PhaseReader:
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
        shelf=Shelf(cache_folder(), recipe.stored_as, int(recipe.cache_gb * GIB)),
        seed=derive_seed(recipe.seed, "views"),
        device=run.classifier.device,
        bar=watch.bar,
    )


def _train(run: Run, reader: PhaseReader, watch: Watcher) -> float:
    """Train every phase; gives the seconds it took, looks included."""
    started = time.perf_counter()
    recipe, classifier = run.recipe, run.classifier
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(reader.train.targets, len(classifier.classes), classifier.task)
        weights = weights.to(classifier.device)
    settings = FitSettings(
        recipe.seed, recipe.resolved_precision, recipe.resolved_monitor, weights, run.folder.checkpoints
    )
    phases = {phase.name: phase for phase in recipe.phases}

    def on_epoch(records: Sequence[EpochRecord], is_best: bool) -> None:
        run.folder.write_metrics(summary.METRICS_HEADER, (summary.metrics_row(record) for record in records))
        watch.epoch(phases[records[-1].phase], records[-1], is_best, settings.monitor)

    progress = fit(classifier, recipe.phases, reader.sources_of, settings, Watch(on_epoch, watch.say))
    watch.say(summary.best_line(progress.records, settings.monitor))
    return time.perf_counter() - started


def _finish(run: Run, reader: PhaseReader, started: float, training: float, watch: Watcher) -> None:
    manifest, classifier = run.prepared.manifest, run.classifier
    val = manifest.indices("val")
    chosen = np.linspace(0, len(val) - 1, min(GOLDEN_IMAGES, len(val))).astype(int)
    golden = [manifest.file(int(row)) for row in val[chosen]]
    results = _evaluate(run, reader, chosen, golden, watch)
    card = model_card.write(classifier, run.recipe, manifest, results)
    if not run.folder.model.exists():
        write_bundle(classifier, run.folder.model, golden, card)
    seconds = time.perf_counter() - started
    saved = run.folder.read_plan() or {}
    run.folder.write_plan({**saved, "actual": {"seconds": seconds, "training_seconds": training}})
    run.folder.write_evaluation({split: asdict(result) for split, result in results.items()})
    summary.show_results(run.folder, results, summary.Times(seconds, training, saved["predicted"]["seconds"]), watch)


def _evaluate(
    run: Run, reader: PhaseReader, chosen: np.ndarray, golden: Sequence[Path], watch: Watcher
) -> dict[str, Evaluation]:
    """Metrics on validation and test: from stored features where they give what the shipped classifier gives."""
    manifest, classifier = run.prepared.manifest, run.classifier
    splits = [split for split in ("val", "test") if len(manifest.indices(split))]
    if final := reader.final_sources():
        position, *sources = final
        stored = [evaluate_stored(classifier, position, source) for source in sources if len(source)]
        gap = gap_to_files(classifier, stored[0].probabilities[chosen], golden)
        if gap <= LARGEST_GAP:
            watch.say(
                f"evaluated from stored features; on {len(golden)} golden images they give what the bundle gives to "
                f"within {gap:.2g} of probability"
            )
            return {split: item.evaluation for split, item in zip(splits, stored, strict=True)}
        watch.say(f"stored features are off by {gap:.2g} of probability: evaluating from the files instead")
    return {
        split: evaluate_rows(classifier, manifest, manifest.indices(split), watch.bar(f"evaluate {split}"))
        for split in splits
    }
