"""The training of a run, phase by phase, and what becomes of each phase.

Each phase starts from the weights of the last one that was kept. Every decision follows from the records of the epochs
(`thaw.training.epoch`), so a killed run resumes from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from thaw.device import free_unused, generators_restored
from thaw.errors import TrainingError
from thaw.formats import duration
from thaw.recipe import ResolvedPhase
from thaw.training import checkpoint
from thaw.training.checkpoint import Progress
from thaw.training.context import FitContext, TrainingPaused
from thaw.training.epoch import ActivePhase, OutOfMemory, begin_phase, fit_epoch, freeze_lowest
from thaw.training.gain import PhaseGain, gain_text, kept_record, phase_gain, phase_gains, target_reached
from thaw.training.head_solver import PENALTIES
from thaw.training.history import EpochRecord, best_index, divergence, should_stop
from thaw.training.skipping import falls_short, reason_to_skip
from thaw.training.sources import PhaseSources
from thaw.training.standardise import fit_standardisation


def fit(run: FitContext, sources_of: Callable[[int], PhaseSources]) -> Progress:
    """Train every phase that is not done yet and leave the weights of the last phase that is kept in the classifier.

    PyTorch's generators, which each epoch seeds, are afterwards as they were.

    Args:
        run: What is trained, how, and what is called along the way.
        sources_of: Gives the inputs of a phase by its index. Called when the phase begins, with the classifier holding
            the weights that the phase starts from.

    Returns:
        The records of all epochs, the gains of all phases, and the notes of phases that were stopped or changed.

    Raises:
        TrainingError: No epoch of any phase gave a finite loss.
        TrainingPaused: `pauses` of the callbacks said so.
    """
    try:
        with generators_restored(run.classifier.device):
            return _fit(run, sources_of)
    finally:
        run.checkpoints.wait()


def _fit(run: FitContext, sources_of: Callable[[int], PhaseSources]) -> Progress:
    """As `fit`; checkpoints may still be written when it ends."""
    _share_weights(run)
    saved = checkpoint.read(run.settings.checkpoints, "last")
    progress = _with_gains(run, saved.progress if saved else Progress())
    untrained = {key: value.clone() for key, value in run.checkpoints.weights().items()}
    for index in range(progress.phase, len(run.phases)):
        if _is_skipped(run, index, progress):
            continue
        begins_anew = not run.checkpoints.load("best")
        if begins_anew:
            run.classifier.load_state_dict(untrained, strict=False)
        sources = sources_of(index)
        if begins_anew:
            if run.process.is_main:
                position = run.classifier.backbone.cut(run.phases[index].cut).position
                fit_standardisation(run.classifier, position, sources.train)
            _share_weights(run)
        progress = _fit_phase(run, index, sources, replace(progress, phase=index))
        progress = _end_phase(run, progress)
        run.checkpoints.save("last", progress)
    if reached := _target_reached(run, progress.records, progress.gains):
        run.on_note(reached)
    if not run.checkpoints.load("best"):
        raise TrainingError("no epoch of any phase gave a finite loss: " + " ".join(progress.notes))
    run.classifier.eval()
    return progress


def _fit_phase(run: FitContext, index: int, sources: PhaseSources, progress: Progress) -> Progress:
    phase, checkpoints = run.phases[index], run.checkpoints
    active = begin_phase(run, phase, sources)
    if progress.epoch or progress.batch_size:
        checkpoints.load("last", active.optimizer)
    else:
        progress = replace(progress, batch_size=phase.batch_size)
        checkpoints.save("last", progress, active.optimizer)
    epochs = min(phase.epochs, len(PENALTIES)) if phase.solver == "lbfgs" else phase.epochs
    while progress.epoch < epochs and not _is_over(run, phase, progress):
        active = freeze_lowest(active, sources, progress.epoch)
        record, too_large = _epoch_or_reason(active, progress)
        if record is None:
            progress = _halve_batch(run, phase, progress, too_large)
            del active
            free_unused(run.classifier.device)
            active = begin_phase(run, phase, sources)
            checkpoints.load("last", active.optimizer)
            continue
        progress = replace(progress, epoch=progress.epoch + 1, records=(*progress.records, record))
        # What is on the disk is never more than this epoch behind.
        checkpoints.wait()
        is_best = best_index(progress.records[-progress.epoch :], run.settings.monitor) == progress.epoch - 1
        if is_best:
            checkpoints.save("phase", progress)
        run.on_epoch(progress.records, is_best)
        if reason := divergence(progress.records, phase):
            note = f"phase {phase.name} stopped in epoch {record.epoch}: {reason} {_advice(index, phase, record)}"
            run.on_note(note)
            return replace(progress, notes=(*progress.notes, note))
        checkpoints.save("last", progress, active.optimizer)
        if run.callbacks.pauses(progress.records):
            raise TrainingPaused(progress.records)
    return progress


def _share_weights(run: FitContext) -> None:
    """Every process goes on with the weights of the main one, which it may be waited for."""
    run.process.barrier()
    run.process.share(run.classifier.state_dict().values())


def _with_gains(run: FitContext, progress: Progress) -> Progress:
    """The progress with the gains of the phases that are done, which release 0.1 did not keep."""
    done = progress.records[: len(progress.records) - progress.epoch]
    return replace(progress, gains=progress.gains or phase_gains(done, run.settings.keep_rule))


def _running_gain(run: FitContext, progress: Progress) -> PhaseGain | None:
    """The gain of the running phase with its epochs so far."""
    name = run.phases[progress.phase].name
    return phase_gain(progress.records, name, progress.gains, run.settings.keep_rule)


def _end_phase(run: FitContext, progress: Progress) -> Progress:
    """The best epoch of the phase replaces that of the last phase that was kept, if it gained enough."""
    gain = _running_gain(run, progress)
    done = replace(progress, phase=progress.phase + 1, epoch=0, batch_size=None)
    if gain is None:
        run.on_note(f"phase {run.phases[progress.phase].name} is not kept: none of its epochs has a finite loss")
        return done
    # A phase that release 0.1 began has no checkpoint of its own until an epoch is better, and then is kept already.
    if gain.is_kept and run.checkpoints.load("phase"):
        run.checkpoints.save("best", progress)
    if gain.before is not None:
        outcome, planned = "kept" if gain.is_kept else "not kept", run.phases[progress.phase].epochs
        ended = f" (ended after {gain.epochs} of {planned} epochs)" if gain.epochs < planned else ""
        run.on_note(f"phase {gain.phase} is {outcome}: {gain_text(gain, run.settings.monitor)}{ended}")
    return replace(done, gains=(*progress.gains, gain))


def _is_skipped(run: FitContext, index: int, progress: Progress) -> bool:
    """Whether a phase is not trained, and a note why; a phase that has begun is never skipped."""
    if index == progress.phase and progress.epoch:
        return False
    settings = run.settings
    reason = reason_to_skip(progress.records, progress.gains, run.phases, index, settings)
    if reason:
        seconds = settings.phase_seconds
        saved = f"; this saves at most {duration(seconds[index])}" if seconds else ""
        run.on_note(f"phase {run.phases[index].name} is skipped: {reason}{saved}")
    return reason is not None


def _is_over(run: FitContext, phase: ResolvedPhase, progress: Progress) -> bool:
    """Whether the phase stops early, or the run has reached its target."""
    gain = _running_gain(run, progress)
    gains = (*progress.gains, gain) if gain else progress.gains
    if _target_reached(run, progress.records, gains) or (gain and falls_short(gain, phase)):
        return True
    return should_stop(progress.records, phase, run.settings.monitor)


def _target_reached(run: FitContext, records: Sequence[EpochRecord], gains: Sequence[PhaseGain]) -> str | None:
    settings = run.settings
    kept = kept_record(records, gains, settings.monitor)
    return target_reached(kept, settings.target, settings.val_images, settings.target_trials)


def _advice(index: int, phase: ResolvedPhase, record: EpochRecord) -> str:
    """Where a phase diverged, and what to try."""
    kept = "the best weights so far are kept"
    if record.lr is None:
        return f"at penalty {record.penalty:.2g}; try --set phases.{index}.solver=optimizer; {kept}"
    return f"at learning rate {record.lr:.2g}; try --set phases.{index}.lr={phase.lr / 10:.2g}; {kept}"


def _epoch_or_reason(active: ActivePhase, progress: Progress) -> tuple[EpochRecord | None, str]:
    """One epoch, or why memory ran out; nothing refers to what it was training any more, as the error did."""
    try:
        return fit_epoch(active, progress), ""
    except OutOfMemory as error:
        return None, str(error)


def _halve_batch(run: FitContext, phase: ResolvedPhase, progress: Progress, reason: str) -> Progress:
    """The progress with half the batch size.

    Raises:
        TrainingError: One image alone does not fit, or other processes take part, whose step this one cannot repeat.
    """
    batch_size = progress.batch_size or phase.batch_size
    if batch_size == 1:
        raise TrainingError(f"phase {phase.name}: one image alone does not fit into memory ({reason})")
    if run.process.count > 1:
        raise TrainingError(
            f"phase {phase.name}: a process is out of memory at batch size {batch_size} of all {run.process.count} "
            f"processes ({reason}); set a smaller batch_size and start a new run"
        )
    note = f"phase {phase.name}: out of memory at batch size {batch_size}; continuing with {batch_size // 2}"
    run.on_note(note)
    return replace(progress, batch_size=batch_size // 2, notes=(*progress.notes, note))
