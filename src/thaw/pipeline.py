"""The story in a few calls: prepare the data, plan, look once, train phase by phase, keep the best, evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from thaw import atomic, hub
from thaw.backbones import build
from thaw.bundle import bundle_of, certify, golden_of, read_bundle, write_bundle
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier
from thaw.cross_validate import cross_validate as cross_validate_run
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.device import keep_freed_memory, worker_count
from thaw.errors import DataError, RecipeError
from thaw.evaluation import test_time_options
from thaw.evaluation.compare import Comparison
from thaw.evaluation.compare import compare as compare_records
from thaw.evaluation.evaluate import Evaluation, evaluate_rows, groups_among
from thaw.evaluation.folds import Repeats
from thaw.evaluation.records import read_records
from thaw.evaluation.test_time_options import Option
from thaw.evaluation.thresholds import check_requirements, choose_decision, threshold_results
from thaw.inspection import page as inspection_page
from thaw.inspection.inspect import Inspection, inspect_images
from thaw.planning.plan import Plan
from thaw.prediction.predict import Prediction, predict_files
from thaw.progress import NullReporter, Reporter
from thaw.recipe import DecisionSettings, Recipe
from thaw.report import model_card
from thaw.report import page as report_page
from thaw.run import run
from thaw.run_folder import InspectionFolder, RunFolder
from thaw.terminal import results, run_summary
from thaw.terminal.console import ConsoleReporter
from thaw.trial import plan_trial


def finetune(
    dataset: Dataset,
    recipe: Recipe | None = None,
    runs: str | Path = "runs",
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Classifier:
    """Plan, train every phase, keep the best, evaluate, and leave a run folder with the bundle under `runs`.

    With `resume` the newest unfinished run under `runs` goes on; without a `recipe` that is the one it began with.
    Raises a `ThawError` in one sentence for anything that a person can mend.
    """
    keep_freed_memory()
    reporter = reporter or ConsoleReporter()
    try:
        return run(dataset, recipe, Path(runs), reporter, resume).classifier
    finally:
        reporter.close()


def load(path: str | Path) -> Classifier:
    """The classifier of a finished run or of a bundle."""
    keep_freed_memory()
    return read_bundle(bundle_of(Path(path)))


def save(classifier: Classifier, folder: str | Path) -> None:
    """Write a classifier as a bundle to a new folder; `thaw.load` reads it back. Raises `BundleError`."""
    write_bundle(classifier, Path(folder))


def predict(model: str | Path | Classifier, images: Iterable[str | Path], batch_size: int = 32) -> list[Prediction]:
    """One `Prediction` for each image file, in order; a file that cannot be read gives an error row with its reason.

    `model` is a run, a bundle or a classifier.
    """
    classifier = model if isinstance(model, Classifier) else load(model)
    return list(predict_files(classifier, [Path(path) for path in images], batch_size))


def decide(
    trained: str | Path, settings: DecisionSettings, out: str | Path, reporter: Reporter | None = None
) -> Classifier:
    """The classifier of a run with another decision, written as a bundle to `out`; nothing is trained or looked at.

    Thresholds are chosen on the run's predictions on validation, and what they do on test is shown. Raises
    `RecipeError` for a wish that validation cannot fulfil.
    """
    reporter, folder = reporter or ConsoleReporter(), RunFolder.at(Path(trained))
    classifier = load(folder.path)
    check_requirements(settings, classifier.classes)
    decided = choose_decision(settings, classifier.classes, read_records(folder.predictions, "val").scored)
    if decided.unmet:
        raise RecipeError("; ".join(decided.unmet))
    classifier.decision = decided.decision
    for split in ("val", "test"):
        scored = read_records(folder.predictions, split).scored
        results.show_threshold_results(split, threshold_results(decided.decision, classifier.classes, scored), reporter)
    card = (folder.model / "MODEL_CARD.md").read_text(encoding="utf-8")
    write_bundle(classifier, Path(out), golden_of(folder.model), f"{card}\nDecision: {decided.decision.reason}.\n")
    reporter.say(f"bundle {out}: {decided.decision.reason}")
    return classifier


def push(trained: str | Path, name: str, private: bool = True) -> str:
    """Upload the bundle of a run to a model hub as `OWNER/NAME`; gives its address.

    It is certified on its golden images first. `hub:OWNER/NAME` then names it wherever a bundle is asked for. Raises
    `BundleError` in one sentence.
    """
    folder = bundle_of(Path(trained))
    classifier = read_bundle(folder)
    certify(classifier, folder)
    file = folder / "MODEL_CARD.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return hub.push(folder, name, model_card.for_hub(classifier, text, name), private)


def evaluate(classifier: Classifier, dataset: Dataset, reporter: Reporter | None = None) -> Evaluation:
    """Metrics of a classifier on every image of a labelled data set."""
    keep_freed_memory()
    reporter = reporter or NullReporter()
    try:
        return evaluate_rows(classifier, dataset.manifest, np.arange(len(dataset)), reporter.bar("evaluate"))
    finally:
        reporter.close()


def cross_validate(
    trained: str | Path, folds: int = 5, seeds: int = 1, whole: bool = False, reporter: Reporter | None = None
) -> Repeats:
    """Figures of every image of a run's data, each tested by a classifier that never saw it, for each seed.

    Without `whole` a linear head on the frozen network is trained each time, from stored features; with it the whole
    recipe, whose runs are left in the run folder. Raises a `ThawError` in one sentence for what a person can mend.
    """
    keep_freed_memory()
    reporter = reporter or ConsoleReporter()
    try:
        found = cross_validate_run(RunFolder.at(Path(trained)), folds, seeds, whole, reporter)
        results.show_repeats(found, reporter)
        return found
    finally:
        reporter.close()


def report(run_path: str | Path, reporter: Reporter | None = None) -> Path:
    """Write report.html of a finished run anew, and say where it is.

    Raises a `ThawError` in one sentence for anything that a person can mend.
    """
    reporter, folder = reporter or NullReporter(), RunFolder(Path(run_path))
    try:
        if bundle_of(folder.path) != folder.model:
            raise DataError(f"{run_path}: is a bundle; a report is made of the run that left it, such as runs/train-1")
        folder.remove_leftovers()
        return report_page.write_page(folder, load(folder.path), reporter)
    finally:
        reporter.close()


def try_options(trained: str | Path, reporter: Reporter | None = None) -> tuple[Option, ...]:
    """What averaging with mirror images and larger pictures do on a run's validation images, and what they cost."""
    keep_freed_memory()
    reporter, folder = reporter or ConsoleReporter(), RunFolder.at(Path(trained))
    try:
        classifier, manifest = load(folder.path), Manifest.read(folder.manifest)
        rows = manifest.indices("val")
        files, engine = [manifest.file(int(row)) for row in rows], folder.read_recipe().engine
        bar = reporter.bar("predict in every way")
        found = test_time_options.try_options(
            classifier, files, manifest.targets()[rows], groups_among(manifest, rows), engine, bar
        )
        results.show_options(found, len(rows), reporter)
        return found
    finally:
        reporter.close()


def compare(first: str | Path, second: str | Path, split: str = "test", reporter: Reporter | None = None) -> Comparison:
    """Two runs on the images that both were tested on (or validated on, for split val), the second beside the first."""
    reporter = reporter or ConsoleReporter()
    folders = [RunFolder.at(Path(path)) for path in (first, second)]
    found = compare_records(*(read_records(folder.predictions, split) for folder in folders))
    results.show_comparison(folders[0].path, folders[1].path, found, reporter)
    return found


def inspect(
    dataset: Dataset, recipe: Recipe | None = None, runs: str | Path = "runs", reporter: Reporter | None = None
) -> Inspection:
    """Measure a data set through a backbone before any training, and leave a page and a JSON file under `runs`.

    The backbone, its weights, size, device and engine are those of the `recipe`. Raises a `ThawError` in one sentence
    for anything that a person can mend.
    """
    keep_freed_memory()
    asked, reporter = recipe or Recipe(), reporter or ConsoleReporter()
    try:
        dataset = dataset.as_task(asked.task)
        backbone = build(asked)
        cache, bar = cache_folder(), reporter.bar("decode every image once")
        spec, workers = backbone.facts.pixels, worker_count()
        pixels = PixelStore.open_or_build(dataset.manifest, spec, asked.decode, cache, workers, bar)
        found = inspect_images(asked, pixels.describe(dataset.manifest), pixels, backbone, cache, reporter.bar)
        folder = InspectionFolder.create(Path(runs))
        folder.write(inspection_page.write_page(found, pixels), inspection_page.to_json(found))
        run_summary.show_inspection(found, folder, reporter)
        return found
    finally:
        reporter.close()


def plan(
    dataset: Dataset, recipe: Recipe | None = None, out: str | Path = "recipe.yaml", reporter: Reporter | None = None
) -> Plan:
    """Decide everything that `finetune` would decide, show it with its reasons, and write it to `out` as a recipe.

    Decodes and measures, and trains nothing. Raises `RecipeError` when `out` is there already, and a `ThawError` in one
    sentence for anything else that a person can mend.
    """
    keep_freed_memory()
    asked, reporter, file = recipe or Recipe(), reporter or ConsoleReporter(), Path(out)
    if file.exists():
        raise RecipeError(f"{file}: is there already; remove it or name another file with --out")
    if not file.parent.is_dir():
        raise RecipeError(f"{file}: there is no folder {file.parent}")
    try:
        decided = plan_trial(dataset.as_task(asked.task), asked, None, reporter).plan
        atomic.write_text(file, decided.recipe.to_yaml())
        reporter.say(f"recipe {file}: edit it, and run it with `thaw train DATA --recipe {file}`")
        return decided
    finally:
        reporter.close()
