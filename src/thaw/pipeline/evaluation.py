"""How good a classifier is, why it decides as it does, and which decision thresholds to use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from thaw import cross_validation
from thaw.bundle import digest_of, write_bundle
from thaw.bundle_path import bundle_of
from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.groups import group_images
from thaw.data.manifest import Manifest
from thaw.device import keep_freed_memory
from thaw.errors import DataError, RecipeError, first_line
from thaw.evaluation import test_time_options
from thaw.evaluation.compare import Comparison
from thaw.evaluation.compare import compare as compare_records
from thaw.evaluation.decide import decide as decide_by_records
from thaw.evaluation.decide import evaluate_records
from thaw.evaluation.evaluate import Evaluation, evaluate_rows
from thaw.evaluation.folds import CrossValidation
from thaw.evaluation.images_of_run import count_images_of_run
from thaw.evaluation.overlays import Overlay, write_overlays
from thaw.evaluation.records import read_records
from thaw.evaluation.test_time_options import Option
from thaw.features.cluster_pass import extracting_on
from thaw.golden import golden_of
from thaw.pipeline.models import Model, load
from thaw.prediction.inputs import LeftOut, files_at
from thaw.progress import NullReporter, Reporter
from thaw.recipe import DecisionSettings
from thaw.remote import mirrored
from thaw.reports import model_card, page
from thaw.run_folder import RunFolder
from thaw.terminal import results
from thaw.terminal.console import ConsoleReporter
from thaw.writing import check_new, path_errors_explained


@path_errors_explained()
def evaluate(model: Model, data: str | Path | Dataset, reporter: Reporter | None = None) -> Evaluation:
    """Evaluate a classifier on labelled images.

    Args:
        model: A run, a bundle or a classifier.
        data: Labelled images: a folder or table, here or at an address such as s3://bucket/images, or a `Dataset`; each
            class must be one of the classifier's.
        reporter: Shows progress; silent by default.

    Returns:
        Metrics with 95 % confidence intervals, overall and per class. For a run also how many images it was trained on,
        in `images_of_run`: metrics on these are no estimate for new images. What is remarkable about the images is in
        `notes`.

    Raises:
        DataError: If the images or labels cannot be used, or the classifier does not know a class.

    Example:
        >>> thaw.evaluate("runs/train-1", "images").images
        36
    """
    keep_freed_memory()
    classifier = load(model)
    with closing(reporter or NullReporter()) as shown:
        classes = classifier.classes
        dataset = data if isinstance(data, Dataset) else Dataset.open(data, classifier.task, classes, bar=shown.bar)
        rows, run = np.arange(len(dataset)), _run_of(model)
        manifest, notes = _grouped(dataset.manifest, run)
        notes = (*dataset.notes, *notes)
        for note in notes:
            shown.say(note)
        files = (manifest.file(int(row)) for row in rows)
        known = count_images_of_run(Manifest.read(run.manifest), files) if run else None
        found = evaluate_rows(classifier, manifest, rows, shown.bar("evaluate"))
        return replace(found, images_of_run=known, notes=notes)


def _grouped(manifest: Manifest, run: RunFolder | None) -> tuple[Manifest, tuple[str, ...]]:
    """Images in the groups that a run on them would find in their column, folders and names; and remarks."""
    try:
        plan = run.read_plan() if run else None
        grouped = group_images(manifest, plan.requested.split.group_by if plan else "auto", captures=())
    except DataError as error:
        return manifest, (f"images count as independent: {first_line(error)}",)
    return grouped.manifest, tuple(grouped.notes)


def _run_of(model: Model) -> RunFolder | None:
    """The run that a model is, or that has it as its bundle; `None` where that is not known."""
    if isinstance(model, Classifier):
        return None
    path = Path(model).absolute()
    run = RunFolder(path.parent if path == RunFolder(path.parent).model else path)
    return run if run.manifest.is_file() else None


@path_errors_explained()
def cross_validate(
    run: str | Path,
    folds: int = 5,
    seeds: int = 1,
    whole: bool = False,
    reporter: Reporter | None = None,
    cluster: str | None = None,
) -> CrossValidation:
    """Cross-validate a run: metrics over all its images, each predicted by a classifier trained without it.

    Args:
        run: A finished run.
        folds: Number of folds, at least 2.
        seeds: Number of repeats, each with other folds.
        whole: Train the whole recipe on each fold, instead of a linear head on cached features, which takes seconds.
        reporter: Shows the result; the console by default.
        cluster: Train each fold of each seed on a Ray cluster: HOST:PORT of its head, or "local".

    Returns:
        Metrics of each repeat.

    Raises:
        DataError: If there are too few images for the folds.
        ClusterError: If the cluster cannot be used, or work fails there.

    Example:
        >>> thaw.cross_validate("runs/train-1", folds=3, reporter=thaw.NullReporter()).images
        36
    """
    keep_freed_memory()
    with closing(reporter or ConsoleReporter()) as shown:
        with extracting_on(cluster, shown) as nodes:
            found = cross_validation.cross_validate(RunFolder.at(Path(run)), folds, seeds, whole, shown, nodes)
        results.show_cross_validation(found, shown)
        return found


@path_errors_explained()
def compare(first: str | Path, second: str | Path, split: str = "test", reporter: Reporter | None = None) -> Comparison:
    """Compare two runs on the images that both were tested on.

    Args:
        first: A finished run.
        second: Another one on the same images.
        split: "test" or "val".
        reporter: Shows the comparison; the console by default.

    Returns:
        The difference of each metric, second minus first, with its 95 % confidence interval.

    Raises:
        DataError: If a run has no predictions on the split, or the runs share no image, or disagree on labels.

    Example:
        >>> thaw.compare("runs/train-1", "runs/train-1", reporter=thaw.NullReporter()).only_first
        0
    """
    folders = [RunFolder.at(Path(path)) for path in (first, second)]
    _check_split(folders, split)
    of_first, of_second = (_digests(folder) for folder in folders)
    replaced = {path for path, digest in of_first.items() if of_second.get(path, digest) != digest}
    found = compare_records(*(read_records(folder.predictions, split) for folder in folders), replaced=replaced)
    results.show_comparison(folders[0].path, folders[1].path, found, reporter or ConsoleReporter())
    return found


def _check_split(runs: Sequence[RunFolder], split: str) -> None:
    """Raise `DataError` for a run that has no predictions on a split, with the splits of which all runs have some."""
    known = [run.read_evaluation().evaluations for run in runs]
    common = [name for name in known[0] if all(name in splits for splits in known)]
    instead = f"; use --split {' or '.join(common)}" if common else ""
    for run, splits in zip(runs, known, strict=True):
        if split not in splits:
            raise DataError(f"{run.path}: has no predictions on {split}{instead}")


def _digests(run: RunFolder) -> dict[str, str]:
    """The SHA-256 of each image of a run, by its path."""
    manifest = Manifest.read(run.manifest)
    return dict(zip(manifest.column("path"), manifest.column("sha256"), strict=True))


@path_errors_explained()
def decide(
    run: str | Path, settings: DecisionSettings, out: str | Path, reporter: Reporter | None = None
) -> Classifier:
    """Choose other decision thresholds, costs or limits of review for a trained classifier; nothing is trained.

    Args:
        run: A finished run, on whose validation predictions the thresholds are chosen.
        settings: Target recall or precision by class, or misclassification costs; coverage and in_distribution where
            they are set. Requirements and costs replace those of the classifier, if any are set, also to none; all else
            stays.
        out: The bundle to write; it must not exist.
        reporter: Shows what changes on validation and test; the console by default.

    Returns:
        The classifier with the new decision.

    Raises:
        RecipeError: If a class does not exist, or validation cannot meet a requirement.
        WriteError: If `out` already exists or cannot be written.

    Example:
        >>> recipe = thaw.Recipe(decision={"recall": {"scratch": 0.9}})
        >>> thaw.decide("runs/train-1", recipe.decision, "model-90", reporter=thaw.NullReporter()).decision.reason
        'recall of scratch at least 0.9'
    """
    shown, folder = reporter or ConsoleReporter(), RunFolder.at(Path(run))
    check_new(Path(out))
    classifier = load(folder.path)
    chosen = decide_by_records(classifier, settings, read_records(folder.predictions, "val"))
    if chosen.unmet:
        raise RecipeError("; ".join(chosen.unmet))
    classifier.decision, classifier.review_policy = chosen.decision, chosen.review_policy
    before = folder.read_evaluation().evaluations
    after = {split: evaluate_records(classifier, read_records(folder.predictions, split)) for split in before}
    results.show_decided(before, after, shown)
    card = (folder.model / "MODEL_CARD.md").read_text(encoding="utf-8")
    card = model_card.with_decision(card, chosen.summary, before, after)
    provenance = {"decision_of": folder.path.name, "bundle": digest_of(folder.model)}
    write_bundle(classifier, Path(out), golden_of(folder.model), card, provenance)
    shown.say(f"bundle {out}: {chosen.summary}")
    return classifier


@path_errors_explained()
def explain(
    model: Model,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    class_name: str | None = None,
    reporter: Reporter | None = None,
) -> list[Overlay]:
    """Show where in each image a classifier sees evidence for a class, as a class activation map over the image.

    Args:
        model: A run, a bundle or a classifier.
        images: Image files or folders that are searched for them, or one of these.
        out: The folder for the images; nothing in it is overwritten.
        class_name: The class to explain; the predicted one by default.
        reporter: Shows what is left out of folders; the console by default.

    Returns:
        One row per image: its class, the probability, and where the overlay is; or the reason why there is none.

    Raises:
        DataError: If there is no such file, or the classifier does not know the class.

    Example:
        >>> (row,) = thaw.explain("runs/train-1", ["images/ok/000.png"], "why", class_name="scratch")
        >>> row.label, row.output.name
        ('scratch', '000.png')
    """
    places = [images] if isinstance(images, str | Path) else images
    left_out = LeftOut()
    with closing(reporter or ConsoleReporter()) as shown:
        files = list(files_at([mirrored(path) for path in places], left_out))
        for sentence in left_out.sentences:
            shown.say(sentence)
        return list(write_overlays(load(model), files, Path(out), class_name))


@path_errors_explained()
def report(run: str | Path, reporter: Reporter | None = None) -> Path:
    """Write report.html of a finished run again.

    Args:
        run: A finished run.
        reporter: Shows progress; silent by default.

    Returns:
        Where the report is.

    Raises:
        DataError: If it is not a finished run.

    Example:
        >>> thaw.report("runs/train-1").name
        'report.html'
    """
    folder = RunFolder(Path(run))
    with closing(reporter or NullReporter()) as shown:
        if bundle_of(folder.path) != folder.model:
            raise DataError(f"{run}: is a bundle; a report is made from the run that left it, such as runs/train-1")
        folder.remove_leftovers()
        return page.write_page(folder, load(folder.path), shown)


@path_errors_explained()
def compare_prediction_options(run: str | Path, reporter: Reporter | None = None) -> tuple[Option, ...]:
    """What test-time augmentation and larger images do on a run's validation images, and what they cost.

    Args:
        run: A finished run.
        reporter: Shows the comparison; the console by default.

    Returns:
        One row per option.

    Raises:
        DataError: If it is not a finished run.
    """
    keep_freed_memory()
    folder = RunFolder.at(Path(run))
    with closing(reporter or ConsoleReporter()) as shown:
        classifier, manifest = load(folder.path), Manifest.read(folder.manifest)
        rows = manifest.indices("val")
        if not len(rows):
            raise DataError(f"{run}: has no validation images to compare on; give a run that was not trained on them")
        files, targets = [manifest.file(int(row)) for row in rows], manifest.targets()[rows]
        # One row for each validation image, in the order of the manifest, with near-duplicates in one group.
        engine, groups = folder.read_recipe().engine, read_records(folder.predictions, "val").scored.groups
        bar = shown.bar("compare prediction options")
        found = test_time_options.compare_test_time_options(classifier, files, targets, groups, engine, bar)
        results.show_options(found, len(rows), shown)
        return found
