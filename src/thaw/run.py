"""One run from its first image to its report: a trial, then calibration, evaluation, the bundle and the page."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from thaw.baseline import write_baseline
from thaw.bundle import read_bundle, write_bundle
from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.device import describe_machine, threads_restored
from thaw.errors import ResumeError
from thaw.evaluation.finalize import Finalized, finalize
from thaw.evaluation.records import write_records
from thaw.formats import command
from thaw.memory import measure_memory
from thaw.planning.baseline import baseline_recipe
from thaw.processes import ALONE, Process
from thaw.progress import Reporter
from thaw.recipe import Recipe, ResolvedRecipe
from thaw.reports import augmentations, model_card, page
from thaw.run_folder import ActualCosts, EvaluationFile, PlanFile, RunFolder
from thaw.run_folder.lock import held
from thaw.terminal.results import show_results
from thaw.terminal.training import show_times
from thaw.training.baseline import keeps_baseline
from thaw.trial import TrainingResult, Trial, TrialContext, begin, join, resume, train, trained_weights
from thaw.trial_outputs import golden_images, trial_outputs
from thaw.writing import advising


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
    with threads_restored(), ExitStack() as stack:
        if not process.is_main:
            folder = RunFolder(Path(process.from_main(str)))
            trial = join(dataset, folder, TrialContext(runs, reporter, process))
            train(trial, reporter)
            return trial
        # A baseline is written before the run is planned, and nobody may train the run from then on.
        hold = cache(lambda folder: stack.enter_context(held(folder.path)))

        def on_baseline(trial: Trial) -> None:
            hold(trial.folder)
            write_baseline(trial, started, reporter)

        trial = _begun(dataset, requested, TrialContext(runs, reporter, process, on_baseline), resumes)
        process.from_main(lambda: str(trial.folder.path))
        try:
            with advising(", then re-run with --resume"):
                hold(trial.folder)
                prepared, sheet = trial.prepared, trial.folder.augmentations
                augmentations.draw_run(trial.recipe, prepared.manifest, prepared.pixels, sheet)
                finish(trial, train(trial, reporter), started, reporter)
        except KeyboardInterrupt as stop:
            if not trial.folder.is_finished:
                stop.add_note(f"{trial.folder.path} keeps every epoch that was completed")
            raise
    return trial


def plan_run(dataset: Dataset, requested: Recipe, folder: RunFolder, runs: Path, reporter: Reporter) -> None:
    """Begin a run in a folder, up to its plan; moved under `runs`, it is a run to resume.

    Args:
        dataset: The labelled images.
        requested: The recipe.
        folder: An empty folder.
        runs: Where the earlier runs are, whose images keep their split.
        reporter: Shows the plan.
    """
    started = time.perf_counter()
    with threads_restored():
        context = TrialContext(runs, reporter, on_baseline=lambda trial: write_baseline(trial, started, reporter))
        resume(dataset, requested, context, folder)


def _begun(dataset: Dataset, requested: Recipe | None, context: TrialContext, resumes: bool) -> Trial:
    """A new trial, or the one that these processes began before they were restarted, or the newest unfinished one."""
    process = context.process
    if process.restarts and (begun := RunFolder.begun_by(context.runs, process.launch)):
        return resume(dataset, requested, context, begun)
    if resumes:
        return resume(dataset, requested, context)
    return begin(dataset, requested or Recipe(), context)


def finish(trial: Trial, result: TrainingResult, started: float, reporter: Reporter) -> None:
    """Calibrate and evaluate the classifier, write bundle and report, and show predicted and actual time.

    `started` is when the run began, by `time.perf_counter`.
    """
    folder, recipe, manifest, classifier = trial.folder, trial.recipe, trial.prepared.manifest, trial.classifier
    golden = golden_images(trial)
    outputs = trial_outputs(trial, {record.phase for record in result.records}, golden, reporter, ("val", "test"))
    finalized = finalize(classifier, outputs, recipe.decision, recipe.seed, trained_weights(trial))
    for line in finalized.unmet:
        reporter.say(line)
    write_records(classifier, manifest, finalized.outputs, folder.predictions)
    plan = folder.read_plan()
    assert plan is not None
    if folder.model.exists():
        check_same_weights(classifier, folder.model)
    else:
        trained = baseline_recipe(recipe) if keeps_baseline(result.gains) else recipe
        card = model_card.write(classifier, trained, manifest, finalized.evaluations, plan.estimates)
        write_bundle(classifier, folder.model, golden.files, card)
    passes = trial.inputs.extraction_passes(result.times.phases)
    actual = actual_costs(recipe, result, passes, time.perf_counter() - started)
    machine = describe_machine(classifier.device)
    concluded = replace(plan, actual=actual, machine=machine, gains=result.gains, skipped=result.skipped)
    conclude(folder, concluded, classifier, finalized, reporter)


def conclude(
    folder: RunFolder, plan: PlanFile, classifier: Classifier, finalized: Finalized, reporter: Reporter
) -> None:
    """Write what makes a run finished, once it has its bundle, and show the results; then write its page."""
    assert plan.actual is not None
    folder.write_plan(plan)
    folder.write_evaluation(EvaluationFile(finalized.evaluations, finalized.calibration, classifier.decision))
    show_results(folder, finalized.evaluations, reporter)
    show_times(plan.predicted, plan.actual, reporter)
    try:
        page.write_page(folder, classifier, reporter)
    except Exception as error:  # A page must not cost the hours that training took.
        again = command("thaw", "report", folder.path)
        reporter.say(f"{folder.report.name} could not be written ({error}); try again: {again}")


def check_same_weights(classifier: Classifier, bundle: Path) -> None:
    """Raise `ResumeError` where the bundle that a resumed run finds is not of its classifier."""
    kept = read_bundle(bundle).state_dict()
    for name, value in classifier.state_dict().items():
        # Bundles leave out how many batches BatchNorm has seen.
        if name.endswith("num_batches_tracked"):
            continue
        if name not in kept or not torch.equal(value.cpu(), kept[name]):
            raise ResumeError(f"{bundle}: is not the classifier of this run (its weights differ); move it away")


def actual_costs(recipe: ResolvedRecipe, result: TrainingResult, passes: int, seconds: float) -> ActualCosts:
    """What a run took: `seconds` of this process, with so many passes of extraction over all views, and its phases."""
    names = [phase.name for phase in recipe.phases]
    trained = [[record.seconds for record in result.records if record.phase == name] for name in names]
    return ActualCosts(
        seconds=seconds,
        extraction=result.times.extraction,
        extraction_passes=passes,
        phases=tuple((index, names[index], sum(taken)) for index, taken in enumerate(trained) if taken),
        epochs=tuple(map(len, trained)),
        is_resumed=result.is_resumed,
        memory_bytes=measure_memory().peak,
    )
