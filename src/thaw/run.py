"""One run from its first image to its report: a trial, then calibration, evaluation, the bundle and the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from thaw.bundle import read_bundle, write_bundle
from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.classifier.review import MAX_TRAIN_FEATURES
from thaw.data.dataset import Dataset
from thaw.device import describe_machine, threads_restored
from thaw.errors import ResumeError
from thaw.evaluation.evaluate import LARGEST_GAP, bootstrap_groups, gap_to_files
from thaw.evaluation.finalize import SplitOutputs, finalize, outputs_of_rows
from thaw.evaluation.records import write_records
from thaw.processes import ALONE, Process
from thaw.progress import Reporter
from thaw.recipe import Recipe
from thaw.reports import augmentations, model_card, page
from thaw.run_folder import ActualTimes, EvaluationFile, RunFolder
from thaw.run_folder.lock import held
from thaw.terminal.results import show_results
from thaw.terminal.training import show_times
from thaw.training.outputs import outputs_at
from thaw.trial import TrainingResult, Trial, begin, join, resume, train, trained_weights
from thaw.writing import advising

GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class GoldenImages:
    """A few validation images that the bundle must reproduce: their positions in validation, and their files."""

    positions: np.ndarray
    files: Sequence[Path]


def run(
    dataset: Dataset,
    requested: Recipe | None,
    runs: Path,
    reporter: Reporter,
    resumes: bool = False,
    process: Process = ALONE,
) -> Trial:
    """One run from its first image to its report; with `resumes` the newest unfinished one under `runs`.

    Of several processes the main one plans the run and finishes it; the others only extract and train with it.
    """
    started = time.perf_counter()
    with threads_restored():
        if not process.is_main:
            folder = RunFolder(Path(process.from_main(str)))
            trial = join(dataset, folder, reporter, process)
            train(trial, reporter)
            return trial
        trial = _begun(dataset, requested, runs, reporter, resumes, process)
        process.from_main(lambda: str(trial.folder.path))
        try:
            with advising(", then re-run with --resume"), held(trial.folder.path):
                prepared, sheet = trial.prepared, trial.folder.augmentations
                augmentations.draw_run(trial.recipe, prepared.manifest, prepared.pixels, sheet)
                finish(trial, train(trial, reporter), started, reporter)
        except KeyboardInterrupt as stop:
            if not trial.folder.is_finished:
                stop.add_note(f"{trial.folder.path} keeps every epoch that was completed")
            raise
    return trial


def _begun(
    dataset: Dataset, requested: Recipe | None, runs: Path, reporter: Reporter, resumes: bool, process: Process
) -> Trial:
    """A new trial, or the one that these processes began before they were restarted, or the newest unfinished one."""
    if process.restarts and (begun := RunFolder.begun_by(runs, process.launch)):
        return resume(dataset, requested, runs, reporter, process, begun)
    if resumes:
        return resume(dataset, requested, runs, reporter, process)
    return begin(dataset, requested or Recipe(), runs, reporter, process)


def finish(trial: Trial, result: TrainingResult, started: float, reporter: Reporter) -> None:
    """Calibrate and evaluate the classifier, write bundle and report, and show predicted and actual time.

    `started` is when the run began, by `time.perf_counter`.
    """
    folder, recipe, manifest, classifier = trial.folder, trial.recipe, trial.prepared.manifest, trial.classifier
    golden = _golden_images(trial)
    outputs = _outputs(trial, {record.phase for record in result.records}, golden, reporter)
    finalized = finalize(classifier, outputs, recipe.decision, recipe.seed, trained_weights(trial))
    for line in finalized.unmet:
        reporter.say(line)
    write_records(classifier, manifest, finalized.outputs, folder.predictions)
    plan = folder.read_plan()
    assert plan is not None
    if folder.model.exists():
        check_same_weights(classifier, folder.model)
    else:
        card = model_card.write(classifier, recipe, manifest, finalized.evaluations, plan.estimates)
        write_bundle(classifier, folder.model, golden.files, card)
    actual = _actual_times(trial, result, time.perf_counter() - started)
    machine = describe_machine(classifier.device)
    folder.write_plan(replace(plan, actual=actual, machine=machine, gains=result.gains, skipped=result.skipped))
    folder.write_evaluation(EvaluationFile(finalized.evaluations, finalized.calibration, classifier.decision))
    show_results(folder, finalized.evaluations, reporter)
    show_times(plan.predicted, actual, reporter)
    try:
        page.write_page(folder, classifier, reporter)
    except Exception as error:  # A page must not cost the hours that training took.
        reporter.say(f"{folder.report.name} could not be written ({error}); try again: thaw report {folder.path}")


def check_same_weights(classifier: Classifier, bundle: Path) -> None:
    """Raise `ResumeError` where the bundle that a resumed run finds is not of its classifier."""
    kept = read_bundle(bundle).state_dict()
    for name, value in classifier.state_dict().items():
        # Bundles leave out how many batches BatchNorm has seen.
        if name.endswith("num_batches_tracked"):
            continue
        if name not in kept or not torch.equal(value.cpu(), kept[name]):
            raise ResumeError(f"{bundle}: is not the classifier of this run (its weights differ); move it away")


def _golden_images(trial: Trial) -> GoldenImages:
    """Validation images from first to last."""
    rows = trial.prepared.manifest.indices("val")
    positions = np.linspace(0, len(rows) - 1, min(GOLDEN_IMAGES, len(rows))).astype(int)
    return GoldenImages(positions, [trial.prepared.manifest.file(int(row)) for row in rows[positions]])


def _outputs(trial: Trial, trained: set[str], golden: GoldenImages, reporter: Reporter) -> SplitOutputs:
    """Outputs for every image: from cached features where these agree with the bundle's own path, else from pixels.

    `trained` names the phases that were not skipped.
    """
    prepared, classifier = trial.prepared, trial.classifier
    manifest = prepared.manifest
    splits = [split for split in ("val", "test") if len(manifest.indices(split))]
    groups = {split: bootstrap_groups(manifest, manifest.indices(split), prepared.duplicates) for split in splits}

    def from_pixels(split: str, rows: np.ndarray) -> LabelledOutputs:
        return outputs_of_rows(classifier, manifest, prepared.pixels, rows, reporter.bar(f"evaluate {split}"))

    rows = manifest.indices("train")
    # The main process does this alone.
    if final := replace(trial.inputs, process=ALONE).evaluation_sources(trained):
        sources = {"train": final.train, "val": final.val, "test": final.test}
        cached = {
            split: outputs_at(classifier, final.position, source, "fp32")
            for split, source in sources.items()
            if len(source)
        }
        train = cached.pop("train")
        gap = gap_to_files(classifier, cached["val"].probabilities[golden.positions], golden.files)
        if gap <= LARGEST_GAP:
            reporter.say(
                f"evaluated from cached features; on {len(golden.files)} golden images their probabilities differ from "
                f"the bundle's by at most {gap:.2g}"
            )
            return SplitOutputs(train, rows, cached, groups)
        reporter.say(f"probabilities from cached features differ by {gap:.2g}: evaluating from the images instead")
    else:
        rows = rows[np.linspace(0, len(rows) - 1, min(MAX_TRAIN_FEATURES, len(rows))).astype(int)]
        train = from_pixels("train", rows)
    return SplitOutputs(train, rows, {split: from_pixels(split, manifest.indices(split)) for split in splits}, groups)


def _actual_times(trial: Trial, result: TrainingResult, seconds: float) -> ActualTimes:
    names, times = [phase.name for phase in trial.recipe.phases], result.times
    return ActualTimes(
        seconds=seconds,
        extraction=times.extraction,
        extraction_passes=trial.inputs.extraction_passes(times.training),
        phases=tuple((index, names[index], taken) for index, taken in times.training.items()),
        epochs=tuple(sum(record.phase == name for record in result.records) for name in names),
    )
