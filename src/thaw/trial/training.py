"""The training of a trial, with what is shown and written along the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from thaw.planning.baseline import begins_with
from thaw.progress import Reporter
from thaw.run_folder.live_table import LiveTable
from thaw.run_folder.resume import check_files
from thaw.terminal.epochs import EpochTable
from thaw.terminal.training import kept_line, show_gains
from thaw.training import checkpoint
from thaw.training.baseline import BASELINE, begin_with_baseline, compare_baseline
from thaw.training.checkpoint import Checkpoint, Progress
from thaw.training.context import FitCallbacks, FitContext, Pauses, TrainingPaused, never
from thaw.training.fit import fit
from thaw.training.gain import PhaseGain, kept_index
from thaw.training.history import EpochRecord
from thaw.training.loggers import Loggers, logged_values, open_loggers
from thaw.training.skipping import SkippedPhase, skipped_phases
from thaw.training.sources import PhaseSources
from thaw.trial.trial import Trial, fit_settings, identity_of_baseline


@dataclass
class Stopwatch:
    """Seconds of extracting features, and the phases that this process trained, which extract when they begin."""

    extraction: float = 0.0
    phases: list[int] = field(default_factory=list)

    def timed(self, sources_of: Callable[[int], PhaseSources]) -> Callable[[int], PhaseSources]:
        """The same function, timed."""

        def timed_sources_of(index: int) -> PhaseSources:
            started = time.perf_counter()
            sources = sources_of(index)
            self.extraction += time.perf_counter() - started
            self.phases.append(index)
            return sources

        return timed_sources_of


@dataclass(frozen=True)
class TrainingResult:
    """What came of each phase; the classifier holds the weights that are kept.

    times: of this process. is_resumed: whether another one had begun to train before.
    """

    records: tuple[EpochRecord, ...]
    gains: tuple[PhaseGain, ...]
    skipped: tuple[SkippedPhase, ...]
    times: Stopwatch
    is_resumed: bool


def train(trial: Trial, reporter: Reporter, pauses: Pauses = never) -> TrainingResult:
    """Train the phases, skipping those that do not pay, and leave the weights that are kept in the classifier.

    Raises `TrainingPaused` after an epoch for which `pauses` holds; called again, it goes on from there.
    """
    is_main = trial.inputs.process.is_main
    loggers = open_loggers(trial.recipe, trial.folder.path, reporter) if is_main else Loggers({}, reporter)
    try:
        return _train(trial, loggers, reporter, pauses)
    except BaseException:
        loggers.close()
        raise


def _train(trial: Trial, loggers: Loggers, reporter: Reporter, pauses: Pauses) -> TrainingResult:
    recipe, process, times = trial.recipe, trial.inputs.process, Stopwatch()
    table = EpochTable(recipe.phases, recipe.monitor, reporter)
    metrics = LiveTable(trial.folder.metrics, trial.folder.write_epochs, reporter)
    plan = trial.folder.read_plan()
    assert plan is not None
    if began := check_files(trial.folder, plan):
        if pauses(began.records):
            # A process that was killed had come so far, and had not come to say so.
            raise TrainingPaused(began.records)
        loggers.skip(len(began.records))

    def on_epoch(records: Sequence[EpochRecord], is_best: bool) -> None:
        loggers.epochs(records)
        metrics.write(records)
        table.add(records[-1], is_best)

    settings = fit_settings(trial, trial.folder.checkpoints, plan.run, plan.predicted.phase_seconds)
    callbacks = FitCallbacks(on_epoch, reporter.say, pauses)
    context = FitContext(trial.classifier, recipe.phases, settings, callbacks, process)
    baseline = _read_baseline(trial, reporter)
    untrained = {key: value.clone() for key, value in context.checkpoints.weights().items()} if baseline else {}
    has_not_begun = began in (None, Progress())
    if baseline and has_not_begun and begins_with(recipe, trial.folder.read_baseline_recipe()):
        begin_with_baseline(context, baseline)
    progress = fit(context, times.timed(trial.inputs.sources_of))
    if process.is_main:
        metrics.finish(progress.records)
    if baseline:
        progress = compare_baseline(context, progress, baseline, untrained)
    records, gains = progress.records, progress.gains
    kept = kept_index(records, gains, recipe.monitor)
    loggers.finish(logged_values(records[kept]) if kept is not None else {})
    reporter.say(kept_line(records, gains, recipe.monitor))
    skipped = skipped_phases(records, gains, recipe.phases, settings)
    show_gains(gains, skipped, settings.keep_rule, reporter)
    return TrainingResult(records, gains, skipped, times, is_resumed=began is not None)


def _read_baseline(trial: Trial, reporter: Reporter) -> Checkpoint | None:
    """The baseline of a run, if there is one and it can be compared with the phases."""
    baseline = checkpoint.read(trial.folder.checkpoints, BASELINE)
    if baseline and baseline.run != identity_of_baseline(trial):
        reporter.say("the baseline saw other images or another size of them, so it is not compared with the phases")
        return None
    return baseline
