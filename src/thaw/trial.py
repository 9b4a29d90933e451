"""A trial: one recipe planned on one data set, and trained phase by phase.

`begin` (or `resume`), then `train`; what a run adds to it (evaluation, bundle, report) is in `thaw.run`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.cache import cache_folder
from thaw.checksums import sha256_of
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.data.ahead import remember_geometry
from thaw.data.dataset import Dataset
from thaw.data.groups import as_grouped, with_groups_of
from thaw.data.manifest import Manifest
from thaw.data.prepare import DataPreparation, Prepared
from thaw.device import choose_device, describe_machine, use_threads
from thaw.errors import ThawError, first_line
from thaw.evaluation.evaluate import bootstrap_groups
from thaw.evaluation.finalize import TrainedWeights
from thaw.evaluation.thresholds import check_requirements
from thaw.features.cache import FeatureCache
from thaw.formats import count
from thaw.planning.backbone_choice import choose_backbone
from thaw.planning.baseline import baseline_identity
from thaw.planning.costs import GIB
from thaw.planning.plan import Plan, draft_plan
from thaw.planning.resume import check_same_data, check_same_recipe
from thaw.planning.trained_head import with_trained_head
from thaw.processes import ALONE, Process
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Recipe, ResolvedRecipe, SplitSettings
from thaw.run_folder import PlanFile, RunFolder
from thaw.run_folder.resume import check_files, check_not_begun, checksums, machine_differences
from thaw.seeds import derive_seed
from thaw.terminal.epochs import EpochTable
from thaw.terminal.planning import show_data, show_plan
from thaw.terminal.training import kept_line, show_gains
from thaw.training import checkpoint
from thaw.training.baseline import BASELINE, compare_baseline
from thaw.training.checkpoint import Checkpoint
from thaw.training.context import FitCallbacks, FitContext, FitSettings, Pauses, never
from thaw.training.fit import fit
from thaw.training.gain import PhaseGain, kept_index
from thaw.training.history import EpochRecord
from thaw.training.loggers import Loggers, check_loggers, logged_values, open_loggers
from thaw.training.loss import class_weights
from thaw.training.phases import PhaseInputs, input_plans
from thaw.training.skipping import SkippedPhase, skipped_phases
from thaw.training.sources import PhaseSources


@dataclass(frozen=True)
class PlannedTrial:
    """A plan, the data that it is for, and a classifier with a new head for them."""

    plan: Plan
    prepared: Prepared
    classifier: Classifier


@dataclass(frozen=True)
class Trial:
    """A trial that can be trained: where it writes, what was planned, and on what."""

    folder: RunFolder
    recipe: ResolvedRecipe
    prepared: Prepared
    classifier: Classifier
    inputs: PhaseInputs


@dataclass
class Stopwatch:
    """Seconds of extracting features and of training each phase.

    A phase extracts when it asks for its inputs, and trains from then until the next one asks, or `stop`.
    """

    extraction: float = 0.0
    training: dict[int, float] = field(default_factory=dict)
    _phase: int | None = None
    _since: float = 0.0

    def timed(self, sources_of: Callable[[int], PhaseSources]) -> Callable[[int], PhaseSources]:
        """The same function, timed."""

        def timed_sources_of(index: int) -> PhaseSources:
            self.stop()
            started = time.perf_counter()
            sources = sources_of(index)
            self._phase, self._since = index, time.perf_counter()
            self.extraction += self._since - started
            return sources

        return timed_sources_of

    def stop(self) -> None:
        """The current phase has ended."""
        if self._phase is not None:
            self.training[self._phase] = time.perf_counter() - self._since
        self._phase = None


@dataclass(frozen=True)
class TrainingResult:
    """What came of each phase and the time that this process took; the classifier holds the weights that are kept."""

    records: tuple[EpochRecord, ...]
    gains: tuple[PhaseGain, ...]
    skipped: tuple[SkippedPhase, ...]
    times: Stopwatch


@dataclass(frozen=True)
class TrialContext:
    """What a trial is begun or resumed with, besides its data and its recipe.

    Attributes:
        runs: Where the folders of runs are.
        reporter: Shows progress.
        process: This process, if several train the trial.
        on_baseline: Called with a trial of a linear head on plain views, before the plan measures what takes longer;
            `None` for no baseline.
    """

    runs: Path
    reporter: Reporter
    process: Process = ALONE
    on_baseline: Callable[[Trial], None] | None = None


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
    check_requirements(requested.decision, dataset.classes)
    if found and found.manifest.is_file():
        previous: Manifest | None = Manifest.read(found.manifest)
    else:
        previous = _earlier_split(dataset, requested, context)
    wanted = on_baseline if context.on_baseline else None
    planned = plan_trial(dataset, requested, previous, context.reporter, wanted)
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


def plan_trial(
    dataset: Dataset,
    requested: Recipe,
    previous: Manifest | None,
    reporter: Reporter,
    on_baseline: Callable[[PlannedTrial], None] | None = None,
) -> PlannedTrial:
    """Choose the backbone, decode and split the images, plan everything else, and show it.

    `on_baseline` is called once with a linear head on plain views, where measuring and training will take much longer.
    """
    requested.check_strategy()
    use_threads(requested.threads)
    chosen = choose_backbone(requested, dataset, _preparation(requested, previous, reporter), reporter.say)
    prepared, backbone = prepare(dataset, chosen.recipe, previous, reporter)
    chosen = with_trained_head(chosen, backbone, prepared.manifest)
    cache = cache_folder()
    remember_geometry(requested, backbone.facts.pixels, cache)
    draft = draft_plan(chosen, prepared, with_new_head(backbone, prepared, chosen.recipe), cache)

    def planned(plan: Plan) -> PlannedTrial:
        # The plan may have decided which features the head takes.
        return PlannedTrial(plan, prepared, with_new_head(backbone, prepared, plan.recipe))

    wanted = (lambda plan: on_baseline(planned(plan))) if on_baseline else None
    selected = draft.select(prepared, backbone, cache, reporter.bar, wanted)
    if selected.preprocessing:
        # Decoded and timed anew for images of another size.
        chosen = replace(chosen, recipe=chosen.recipe.with_settings(selected.preprocessing))
        prepared, backbone = prepare(dataset, chosen.recipe, previous, NullReporter())
        draft = draft_plan(chosen, prepared, with_new_head(backbone, prepared, chosen.recipe), cache)
    plan = draft.finished(selected)
    show_plan(plan, reporter)
    return planned(plan)


def prepare(
    dataset: Dataset, recipe: Recipe, previous: Manifest | None, reporter: Reporter
) -> tuple[Prepared, Backbone]:
    """The images decoded and split, and the network for them."""
    backbone = build(recipe)
    prepared = _preparation(recipe, previous, reporter).prepare(dataset, backbone.facts.pixels)
    manifest = prepared.manifest
    show_data(manifest, prepared.notes, reporter)
    return prepared, backbone


def with_new_head(backbone: Backbone, prepared: Prepared, recipe: Recipe) -> Classifier:
    """A classifier with a new head on the features that the recipe asks for."""
    manifest = prepared.manifest
    backbone.use_features(recipe.head.taken)
    outputs, seed = outputs_of(manifest.task, manifest.classes), derive_seed(recipe.seed, "head")
    head = new_head(backbone, outputs, recipe.head.hidden, recipe.head.dropout, seed)
    return Classifier(backbone, head, manifest.classes, manifest.task, recipe.decode)


def train(trial: Trial, reporter: Reporter, pauses: Pauses = never) -> TrainingResult:
    """Train the phases, skipping those that do not pay, and leave the weights that are kept in the classifier.

    Raises `TrainingPaused` after an epoch for which `pauses` holds; called again, it goes on from there.
    """
    recipe, process, times = trial.recipe, trial.inputs.process, Stopwatch()
    table = EpochTable(recipe.phases, recipe.monitor, reporter)
    loggers = open_loggers(recipe, trial.folder.path, reporter) if process.is_main else Loggers({}, reporter)
    plan = trial.folder.read_plan()
    assert plan is not None
    if began := check_files(trial.folder, plan):
        loggers.skip(len(began.records))

    def on_epoch(records: Sequence[EpochRecord], is_best: bool) -> None:
        loggers.epochs(records)
        trial.folder.write_epochs(records)
        table.add(records[-1], is_best)

    settings = fit_settings(trial, trial.folder.checkpoints, plan.run, plan.predicted.phase_seconds)
    callbacks = FitCallbacks(on_epoch, reporter.say, pauses)
    context = FitContext(trial.classifier, recipe.phases, settings, callbacks, process)
    baseline = _read_baseline(trial, reporter)
    untrained = {key: value.clone() for key, value in context.checkpoints.weights().items()} if baseline else {}
    progress = fit(context, times.timed(trial.inputs.sources_of))
    times.stop()
    if baseline:
        progress = compare_baseline(context, progress, baseline, untrained)
    records, gains = progress.records, progress.gains
    kept = kept_index(records, gains, recipe.monitor)
    loggers.finish(logged_values(records[kept]) if kept is not None else {})
    reporter.say(kept_line(records, gains, recipe.monitor))
    skipped = skipped_phases(records, gains, recipe.phases, settings)
    show_gains(gains, skipped, settings.keep_rule, reporter)
    return TrainingResult(records, gains, skipped, times)


def _read_baseline(trial: Trial, reporter: Reporter) -> Checkpoint | None:
    """The baseline of a run, if there is one and it can be compared with the phases."""
    baseline = checkpoint.read(trial.folder.checkpoints, BASELINE)
    if baseline and baseline.run != identity_of_baseline(trial):
        reporter.say("the baseline saw other images or another size of them, so it is not compared with the phases")
        return None
    return baseline


def identity_of_baseline(trial: Trial) -> str:
    """The identity of what the baseline of a trial is trained on; the manifest must have been written."""
    return baseline_identity(trial.recipe, sha256_of(trial.folder.manifest))


def fit_settings(trial: Trial, checkpoints: Path, run: str, phase_seconds: Sequence[float] = ()) -> FitSettings:
    """How the phases of a trial are trained, with checkpoints that carry the identity `run`."""
    recipe, prepared, val = trial.recipe, trial.prepared, trial.inputs.val.rows
    weights = trained_weights(trial)
    return FitSettings(
        seed=recipe.seed,
        precision=recipe.precision,
        steps=recipe.steps,
        monitor=recipe.monitor,
        class_weights=torch.from_numpy(weights.values).to(trial.classifier.device) if weights else None,
        checkpoints=checkpoints,
        val_images=len(val),
        target=recipe.target,
        run=run,
        val_groups=bootstrap_groups(prepared.manifest, val, prepared.duplicates),
        phase_seconds=phase_seconds,
        keep_phase=recipe.keep_phase,
    )


def trial_in(
    folder: RunFolder, recipe: ResolvedRecipe, prepared: Prepared, classifier: Classifier, context: TrialContext
) -> Trial:
    """A trial with its inputs, on its device."""
    classifier.backbone.use_memory_format(recipe.memory_format)
    classifier.to(choose_device(recipe.device).device)
    inputs = PhaseInputs(
        plans=input_plans(recipe),
        pixels=prepared.pixels,
        backbone=classifier.backbone,
        engine=recipe.engine,
        train=prepared.rows("train"),
        val=prepared.rows("val"),
        test=prepared.rows("test"),
        cache=FeatureCache(cache_folder(), recipe.cache_dtype, int(recipe.cache_gb * GIB)),
        seed=derive_seed(recipe.seed, "views"),
        device=classifier.device,
        bar=context.reporter.bar,
        process=context.process,
    )
    return Trial(folder, recipe, prepared, classifier, inputs)


def _preparation(recipe: Recipe, previous: Manifest | None, reporter: Reporter) -> DataPreparation:
    return DataPreparation(recipe.decode, recipe.split, previous, cache_folder(), reporter.bar)


def trained_weights(trial: Trial) -> TrainedWeights | None:
    """The class weights that a trial trains with; `None` for none."""
    kind, classifier = trial.recipe.class_weights, trial.classifier
    weights = class_weights(trial.inputs.train.targets, len(classifier.classes), classifier.task, kind)
    return None if weights is None else TrainedWeights(kind, weights.numpy())


def _earlier_split(dataset: Dataset, requested: Recipe, context: TrialContext) -> Manifest | None:
    """The manifest of the newest run on the same images with the same split settings: its images keep their split."""
    for earlier in RunFolder.earlier(context.runs):
        try:
            manifest, split = Manifest.read(earlier.manifest), Recipe.load(earlier.recipe).split
        except ThawError as error:
            context.reporter.say(f"images that are in {earlier.path} may not keep their split: {first_line(error)}")
            continue
        if manifest.root == dataset.manifest.root and _is_same_split(split, requested.split):
            context.reporter.say(f"images that are in {earlier.path} keep their split")
            return manifest
    return None


def _is_same_split(earlier: SplitSettings, requested: SplitSettings) -> bool:
    """Whether two settings are equal, but for the origin of groups unless one is a regular expression."""
    origins = {earlier.group_by, requested.group_by}
    is_same_origin = len(origins) == 1 or origins <= {"auto", "column", "found", "none"}
    return is_same_origin and earlier.model_copy(update={"group_by": requested.group_by}) == requested
