"""The story in a few calls: prepare the data, plan, look once, train phase by phase, keep the best, evaluate."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from thaw import atomic, run
from thaw.backbones.timm_backbone import build
from thaw.classifier.bundle import read_bundle
from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.pixel_store import PixelStore
from thaw.device import keep_freed_memory, worker_count
from thaw.errors import DataError, RecipeError
from thaw.evaluation.evaluate import Evaluation, evaluate_rows
from thaw.planning.inspection import Inspection, inspect_images
from thaw.planning.plan import Plan
from thaw.progress import Silent, Terminal, Watcher
from thaw.recipe import Recipe
from thaw.report import inspection_page, report_page, summary
from thaw.run_folder import InspectionFolder, RunFolder, bundle_of, cache_folder


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
        this = run.begin(dataset, recipe, Path(runs), resume, watch)
        reader = run.reader_of(this, watch)
        records, stopwatch = run.train(this, reader, watch)
        run.finish(this, reader, records, stopwatch, started, watch)
        return this.classifier
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


def report(run: str | Path, watch: Watcher | None = None) -> Path:
    """Write report.html of a finished run anew, and say where it is.

    Raises a `ThawError` in one sentence for anything that a person can mend.
    """
    watch, folder = watch or Silent(), RunFolder(Path(run))
    try:
        if bundle_of(folder.path) != folder.model:
            raise DataError(f"{run}: is a bundle; a report is made of the run that left it, such as runs/train-1")
        folder.remove_leftovers()
        return report_page.write_page(folder, load(folder.path), watch)
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
        decided, _, _ = run.decide(dataset.as_task(asked.task), asked, None, watch)
        atomic.write_text(file, decided.recipe.to_yaml())
        watch.say(f"recipe {file}: edit it, and run it with `thaw train DATA --recipe {file}`")
        return decided
    finally:
        watch.close()
