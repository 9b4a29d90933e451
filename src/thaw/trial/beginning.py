"""Trials that begin, are resumed or are joined: from a folder, or from data and a recipe."""

from __future__ import annotations

import filecmp
import functools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.groups import as_grouped, with_groups_of
from thaw.data.manifest import Manifest
from thaw.data.prepare import Prepared
from thaw.data.split_units import with_older
from thaw.device import choose_device, describe_machine, use_threads
from thaw.errors import ThawError, first_line
from thaw.formats import count
from thaw.planning.resume import check_same_data, check_same_recipe
from thaw.processes import ALONE
from thaw.progress import Reporter
from thaw.recipe import Recipe, ResolvedRecipe, SplitSettings
from thaw.recipe.network_files import with_absolute_files
from thaw.run_folder import PlanFile, RunFolder
from thaw.run_folder.resume import check_files, check_not_begun, checksums, machine_differences
from thaw.run_folder.search_folder import SearchFolder
from thaw.training.loggers import check_loggers
from thaw.trial.planning import PlannedTrial, plan_trial, prepare, with_new_head
from thaw.trial.trial import Trial, TrialContext, trial_in

_Earlier = RunFolder | SearchFolder


def begin(dataset: Dataset, requested: Recipe, context: TrialContext) -> Trial:
    """Plan a new trial, in a new folder; raises a `ThawError` for anything a user can fix."""
    return _begin_in(None, dataset, requested, context)


def resume(dataset: Dataset, requested: Recipe | None, context: TrialContext, begun: RunFolder | None = None) -> Trial:
    """A trial that was begun, or the newest unfinished one.

    Raises `ResumeError` where its recipe or data have changed.
    """
    folder = begun or RunFolder.latest_unfinished(context.runs)
    plan = folder.read_plan()
    began = plan.requested if plan else folder.read_requested()
    if requested is not None and began is not None:
        check_same_recipe(began, requested)
    if plan is None:
        check_not_begun(folder)
        folder.remove_leftovers()
        return _begin_in(folder, dataset, began or requested or Recipe(), context)
    check_files(folder, plan)
    folder.remove_leftovers()
    trial = _join(dataset, folder, plan, context)
    context.reporter.say(f"resuming {folder.path}")
    return trial


def join(dataset: Dataset, folder: RunFolder, context: TrialContext) -> Trial:
    """A trial as another process planned it; raises `ResumeError` where this one sees other images."""
    plan = folder.read_plan()
    assert plan is not None
    return _join(dataset, folder, plan, context)


def _join(dataset: Dataset, folder: RunFolder, plan: PlanFile, context: TrialContext) -> Trial:
    """A trial in a folder that has its plan."""
    reporter = context.reporter
    dataset = dataset.as_task(plan.requested.task)
    manifest, recipe = Manifest.read(folder.manifest), folder.read_recipe()
    _restore_machine(recipe, plan, reporter)
    prepared, classifier = prepare_again(dataset, recipe, manifest, reporter)
    return trial_in(folder, recipe, prepared, classifier, context)


def prepare_again(
    dataset: Dataset, recipe: Recipe, manifest: Manifest, reporter: Reporter
) -> tuple[Prepared, Classifier]:
    """The images split and grouped as in a manifest; raises `ResumeError` where they are not the same images."""
    # Groups that it began with, or began without, as one of release 0.1.0.
    dataset = replace(dataset, manifest=with_groups_of(dataset.manifest, manifest))
    grouped = recipe.model_copy(update={"split": as_grouped(recipe.split, manifest)})
    prepared, backbone = prepare(dataset, grouped, manifest, reporter)
    check_same_data(manifest, prepared.manifest)
    return prepared, with_new_head(backbone, prepared, grouped)


def _restore_machine(recipe: ResolvedRecipe, plan: PlanFile, reporter: Reporter) -> None:
    """Compute with as many threads as the run began with, and say what else of the machine is another."""
    before, threads = use_threads(None), use_threads(recipe.threads)
    if threads != before:
        reporter.say(f"computing with {count(threads, 'thread')}, as this run began, instead of {before}")
    machine = describe_machine(choose_device(recipe.device).device)
    if differences := machine_differences(plan.machine, machine):
        changed = "; ".join(differences)
        reporter.say(f"this run began on another machine, so the last digits of its weights may differ: {changed}")


def _begin_in(found: RunFolder | None, dataset: Dataset, requested: Recipe, context: TrialContext) -> Trial:
    """Plan a trial in a folder that was found without a plan, or in a new one, made when the first file is written."""

    @functools.cache
    def folder_of_run() -> RunFolder:
        if found:
            return found
        folder = RunFolder.create(context.runs)
        if context.process.launch:
            folder.write_launch(context.process.launch)
        return folder

    def on_baseline(planned: PlannedTrial) -> None:
        folder, prepared = folder_of_run(), planned.prepared
        if context.on_baseline and not folder.baseline.exists():
            prepared.manifest.write(folder.manifest)
            folder.write_requested(requested)
            # The main process does this alone.
            alone = replace(context, process=ALONE)
            context.on_baseline(trial_in(folder, planned.plan.recipe, prepared, planned.classifier, alone))

    choose_device(requested.device)
    check_loggers(requested.loggers)
    dataset = dataset.as_task(requested.task)
    if found and found.manifest.is_file():
        previous: Manifest | None = Manifest.read(found.manifest)
    else:
        previous = earlier_split(dataset, requested, context.runs, context.reporter)
    wanted = on_baseline if context.on_baseline else None
    # Whoever takes the run up later may do so in another folder.
    planned = plan_trial(dataset, with_absolute_files(requested), previous, context.reporter, wanted)
    return begin_planned(folder_of_run(), requested, planned, context)


def begin_planned(folder: RunFolder, requested: Recipe, planned: PlannedTrial, context: TrialContext) -> Trial:
    """Write what was planned into a folder, from which the trial can be resumed."""
    plan, manifest, machine = planned.plan, planned.prepared.manifest, describe_machine(planned.classifier.device)
    manifest.write(folder.manifest)
    folder.write_unreadable(manifest.errors())
    folder.write_recipe(plan.recipe)
    # Last, because a folder that has it can be resumed.
    content = PlanFile(
        requested=requested,
        choices=plan.choices,
        predicted=plan.forecast,
        machine=machine,
        files=checksums(folder),
        estimates=plan.estimates,
        pixels=planned.prepared.pixels.key,
    )
    folder.write_plan(content)
    return trial_in(folder, plan.recipe, planned.prepared, planned.classifier, context)


def earlier_split(dataset: Dataset, requested: Recipe, runs: Path, reporter: Reporter) -> Manifest | None:
    """Content, split and group of the images of the runs and searches on this folder with the same split settings.

    Each image has its newest split; that of a run counts before that of a search.
    """
    known: Manifest | None = None
    found: list[_Earlier] = []
    unreadable: list[tuple[_Earlier, ThawError]] = []
    folders: list[_Earlier] = [*RunFolder.earlier(runs), *SearchFolder.earlier(runs)]
    for earlier in folders:
        try:
            is_same_data = Manifest.read_root(earlier.manifest) == dataset.manifest.root
            if not is_same_data or not _is_same_split(earlier.read_split(), requested.split):
                continue
            # Most runs have the images and splits of the next newer one.
            if not (found and _are_equal(found[-1].manifest, earlier.manifest)):
                manifest = Manifest.read(earlier.manifest, ("sha256", "split", "group"))
                known = with_older(known, manifest) if known else manifest
        except ThawError as error:
            unreadable.append((earlier, error))
        else:
            found.append(earlier)
    if found:
        older = f" or in {_counted(found[1:])}" if len(found) > 1 else ""
        reporter.say(f"images that are in {found[0].path}{older} keep their split")
    if unreadable:
        (first, problem), others = unreadable[0], [folder for folder, _ in unreadable[1:]]
        older = f", or in {_counted(others)} that cannot be read either," if others else ""
        reporter.say(f"images that are only in {first.path}{older} may not keep their split: {first_line(problem)}")
    return known


def _counted(older: Sequence[_Earlier]) -> str:
    if any(isinstance(folder, SearchFolder) for folder in older):
        return count(len(older), "older run or search", "older runs or searches")
    return count(len(older), "older run")


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two files can be read and have the same bytes."""
    with suppress(OSError):
        return filecmp.cmp(one, other, shallow=False)
    return False


def _is_same_split(earlier: SplitSettings, requested: SplitSettings) -> bool:
    """Whether two settings are equal, but for the origin of groups unless one is a regular expression."""
    origins = {earlier.group_by, requested.group_by}
    is_same_origin = len(origins) == 1 or origins <= {"auto", "column", "found", "none"}
    return is_same_origin and earlier.model_copy(update={"group_by": requested.group_by}) == requested
