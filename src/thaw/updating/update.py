"""An update from its run and new images to a new run: features, training, judgement, bundle, page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.bundle import write_bundle
from thaw.checksums import sha256_of
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.device import describe_machine, threads_restored, use_threads
from thaw.errors import DataError, RecipeError, UpdateError
from thaw.evaluation.evaluate import LARGEST_GAP, gap_to_files
from thaw.evaluation.finalize import Finalized, SplitOutputs, finalize
from thaw.evaluation.records import write_records
from thaw.formats import count, listed, percent
from thaw.golden import golden_of
from thaw.planning.costs import Forecast
from thaw.planning.measurements import Choice
from thaw.progress import Reporter
from thaw.reports import model_card
from thaw.run import actual_costs, check_same_weights, conclude
from thaw.run_folder import ImagesPart, PlanFile, RunFolder, UpdateFile
from thaw.run_folder.live_table import LiveTable
from thaw.run_folder.lock import held
from thaw.run_folder.resume import check_files, checksums
from thaw.terminal.epochs import EpochTable
from thaw.terminal.planning import forecast_line, show_data
from thaw.terminal.training import kept_line, show_gains
from thaw.terminal.updates import show_changes
from thaw.training import checkpoint
from thaw.training.context import FitCallbacks, FitContext
from thaw.training.fit import fit
from thaw.training.history import EpochRecord
from thaw.training.outputs import outputs_at
from thaw.trial import Stopwatch, TrainingResult
from thaw.updating.forecast import forecast_update
from thaw.updating.judgement import judge
from thaw.updating.learner import Learner, old_sources
from thaw.updating.new_images import NewImages, open_new, prepare_new
from thaw.updating.phases import update_recipe
from thaw.updating.stored_run import StoredRun

_SHOWN = 5

_NEW_GOLDEN = 4
"""New images that the bundle must reproduce, besides those of the run's bundle."""


def update(source: RunFolder, data: str | Path | Dataset, runs: Path, reporter: Reporter) -> RunFolder:
    """Learn new images, or new classes, with the cached features of a run in place of its images.

    Args:
        source: The finished run; its folder is only read.
        data: The new images with their labels.
        runs: Where the folder of the new run is made; one that the same update began there is resumed.
        reporter: Shows progress.

    Returns:
        The new run, which is like any other.

    Raises:
        DataError: There is no such run, its features are gone, or the new images cannot be used.
        UpdateError: An old class is recognised less well than before, beyond noise; the new folder has no bundle.
    """
    started, times = time.perf_counter(), Stopwatch()
    with threads_restored():
        run = StoredRun.read(source)
        # The features of an engine may depend on the number of threads.
        use_threads(run.recipe.threads)
        dataset = open_new(run, data, reporter)
        old = old_sources(run, reporter)
        new = prepare_new(run, dataset, reporter)
        show_data(new.manifest, (), reporter)
        recipe = update_recipe(run, new.manifest.task)
        predicted, extracting = forecast_update(run, new, recipe), time.perf_counter()
        reporter.say(f"{_learnt(run, new)}; {forecast_line(predicted)}")
        learner = Learner.of(run, new, recipe, old, reporter)
        times.extraction += time.perf_counter() - extracting
        folder = _folder(learner, runs)
        with held(folder.path):
            plan = _begin(learner, folder, predicted, reporter)
            result = _train(learner, folder, plan, times, reporter)
            _finish(learner, folder, result, started, reporter)
    return folder


def _folder(learner: Learner, runs: Path) -> RunFolder:
    """The folder that the same update began, or a new one."""
    wanted = _update_file(learner)
    for folder in RunFolder.newest_first(runs):
        # What is wrong with another folder is no concern of this update.
        with suppress(DataError, RecipeError):
            begun = folder.read_update()
            if folder.is_finished or not begun or replace(begun, old=(), new=(), kept=None) != wanted:
                continue
            if folder.manifest.exists() and not _is_same(Manifest.read(folder.manifest), learner.new.manifest):
                continue
            if not folder.recipe.exists() or folder.read_recipe() == learner.recipe:
                return folder
    return RunFolder.create(runs)


def _is_same(one: Manifest, other: Manifest) -> bool:
    return bool(one.classes == other.classes and one.table.equals(other.table))


def _update_file(learner: Learner) -> UpdateFile:
    run, new = learner.run, learner.new
    added = ImagesPart(len(new.manifest) - new.first, new.pixels.key)
    return UpdateFile(str(run.folder.path.absolute()), run.bundle, run.cut, (*run.parts, added))


def _learnt(run: StoredRun, new: NewImages) -> str:
    """What an update learns from, in words."""
    images = count(len(new.manifest) - new.first, "new image")
    return f"{images}, and the cached features of {count(new.first, 'image')} below {run.cut}"


def _begin(learner: Learner, folder: RunFolder, predicted: Forecast, reporter: Reporter) -> PlanFile:
    """The plan of the folder, written unless it is there; from then on the update can be resumed."""
    if plan := folder.read_plan():
        check_files(folder, plan)
        folder.remove_leftovers()
        reporter.say(f"resuming {folder.path}")
        return plan
    run, new = learner.run, learner.new
    folder.write_update(_update_file(learner))
    new.manifest.write(folder.manifest)
    folder.write_unreadable(new.manifest.errors())
    folder.write_recipe(learner.recipe)
    kept = [choice for choice in run.plan.choices if not choice.setting.startswith(("phases.", "update"))]
    plan = PlanFile(
        requested=learner.recipe,
        choices=(Choice("update", run.folder.path.name, _learnt(run, new)), *kept),
        predicted=predicted,
        machine=describe_machine(learner.classifier.device),
        files=checksums(folder),
    )
    folder.write_plan(plan)
    return plan


def _train(learner: Learner, folder: RunFolder, plan: PlanFile, times: Stopwatch, reporter: Reporter) -> TrainingResult:
    """Train the phases and leave the weights that are kept in the classifier."""
    recipe = learner.recipe
    table = EpochTable(recipe.phases, recipe.monitor, reporter)
    metrics = LiveTable(folder.metrics, folder.write_epochs, reporter)

    def on_epoch(records: Sequence[EpochRecord], is_best: bool) -> None:
        metrics.write(records)
        table.add(records[-1], is_best)

    is_resumed = checkpoint.check(folder.checkpoints, plan.run) is not None
    settings = replace(learner.fit_settings(plan.run), checkpoints=folder.checkpoints)
    callbacks = FitCallbacks(on_epoch, reporter.say)
    context = FitContext(learner.classifier, recipe.phases, settings, callbacks)
    progress = fit(context, times.timed(learner.phase_sources))
    metrics.finish(progress.records)
    reporter.say(kept_line(progress.records, progress.gains, recipe.monitor))
    show_gains(progress.gains, (), settings.keep_rule, reporter)
    return TrainingResult(progress.records, progress.gains, (), times, is_resumed)


def _finish(learner: Learner, folder: RunFolder, result: TrainingResult, started: float, reporter: Reporter) -> None:
    """Calibrate, judge, and where the update is kept write what any run has."""
    classifier, recipe, manifest = learner.classifier, learner.recipe, learner.new.manifest
    finalized = _finalized(learner, reporter)
    write_records(classifier, manifest, finalized.outputs, folder.predictions)
    decided = _update_file(learner).decided(*judge(learner, finalized.outputs.evaluated))
    folder.write_update(decided)
    show_changes(decided, reporter)
    _check_kept(learner, folder, decided)
    golden = _golden(learner, finalized)
    _show_gap(learner, golden, reporter)
    if folder.model.exists():
        check_same_weights(classifier, folder.model)
    else:
        card = model_card.write(classifier, recipe, manifest, finalized.evaluations) + _card(learner)
        provenance = {"update_of": learner.run.folder.path.name, "bundle": learner.run.bundle}
        write_bundle(classifier, folder.model, golden.files, card, provenance)
    plan = folder.read_plan()
    assert plan is not None
    actual = actual_costs(recipe, result, 1, time.perf_counter() - started)
    conclude(folder, replace(plan, actual=actual, gains=result.gains), classifier, finalized, reporter)


def _card(learner: Learner) -> str:
    """What the model card says of the update; the metrics of the run are in its own card."""
    run, new = learner.run, learner.new
    learnt, replayed = count(len(new.manifest) - new.first, "new image"), count(new.first, "image")
    name, bundle = model_card.markdown(run.folder.path.name), run.bundle[:12]
    return (
        f"\nUpdate of {name} (bundle sha256 {bundle}): learnt {learnt}, with the cached features of {replayed} in "
        "place of their files; kept because no old class is recognised less well beyond noise.\n"
    )


def _finalized(learner: Learner, reporter: Reporter) -> Finalized:
    """The classifier calibrated and evaluated, on the features of old and new images."""
    classifier, manifest = learner.classifier, learner.new.manifest
    outputs = {
        split: outputs_at(classifier, learner.run.position, source, "fp32") for split, source in learner.sources.items()
    }
    train = outputs.pop("train")
    found = SplitOutputs(train, manifest.indices("train"), outputs, learner.groups)
    finalized = finalize(classifier, found, learner.recipe.decision, learner.recipe.seed, learner.weights)
    for line in finalized.unmet:
        reporter.say(line)
    return finalized


def _check_kept(learner: Learner, folder: RunFolder, decided: UpdateFile) -> None:
    """Raise `UpdateError` that says what falls, and by how much, where the update is not kept."""
    if decided.kept:
        return
    falls = [
        f"{change.name or 'all old classes together'} {percent(change.before or 0.0)} to {percent(change.after)} of "
        f"{count(change.images, 'image')} (p = {change.p_value:.2g})"
        for change in decided.old
        if change.falls
    ]
    raise UpdateError(
        f"the update is not kept, because it recognises less, beyond noise: {listed(falls, _SHOWN)}; "
        f"{learner.run.folder.path} is unchanged, and {folder.update} has the comparison; add images of these classes, "
        "or train a new run on all images"
    )


@dataclass(frozen=True)
class _Golden:
    """Image files that the bundle must reproduce; of those whose features are known, the probabilities of these."""

    files: list[Path]
    known: list[Path]
    probabilities: np.ndarray


def _golden(learner: Learner, finalized: Finalized) -> _Golden:
    """Those of the run's bundle, which has their files, and new ones."""
    manifest, new = learner.new.manifest, learner.new
    split = next((split for split in ("val", "test", "train") if len(new.rows(split))), "train")
    rows = new.first + new.rows(split)
    rows = rows[np.linspace(0, len(rows) - 1, min(_NEW_GOLDEN, len(rows))).astype(int)]
    files = [*golden_of(learner.run.folder.model), *(manifest.file(int(row)) for row in rows)]
    place = {}
    digests = manifest.column("sha256")
    for name, outputs in finalized.outputs.evaluated.items():
        for row, probabilities in zip(manifest.indices(name), outputs.probabilities, strict=True):
            place[digests[row]] = probabilities
    known = [file for file in files if sha256_of(file) in place]
    width = len(learner.classifier.classes)
    return _Golden(files, known, np.array([place[sha256_of(file)] for file in known]).reshape(-1, width))


def _show_gap(learner: Learner, golden: _Golden, reporter: Reporter) -> None:
    """Say how far probabilities from cached features are from those of the bundle."""
    if not golden.known:
        return
    gap = gap_to_files(learner.classifier, golden.probabilities, golden.known)
    warning = "WARNING: " if gap > LARGEST_GAP else ""
    reporter.say(
        f"{warning}evaluated from cached features; on {count(len(golden.known), 'golden image')} their probabilities "
        f"differ from the bundle's by at most {gap:.2g}"
    )
