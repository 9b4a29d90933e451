"""The training loop: run, epoch, step.

A run trains its phases one after the other, each from the weights of the last one that was kept. All randomness of an
epoch is derived from (seed, phase, epoch) and every decision from the records, so a killed run resumes from its last
checkpoint and ends with the same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from thaw.backbones.contract import Cut
from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.device import to_device
from thaw.errors import TrainingError
from thaw.formats import duration
from thaw.processes import Process
from thaw.recipe import ResolvedPhase
from thaw.seeds import derive_seed
from thaw.training import checkpoint
from thaw.training.checkpoint import Progress
from thaw.training.context import FitContext, TrainingPaused
from thaw.training.folding import FrozenNorms, frozen_norms
from thaw.training.gain import PhaseGain, gain_text, kept_record, phase_gain, phase_gains, target_reached
from thaw.training.head_solver import PENALTIES, HeadSolver
from thaw.training.history import EpochRecord, best_index, divergence, plateau_factor, should_stop
from thaw.training.loss import Loss, make_loss, total_weight
from thaw.training.mixup import draw_blend
from thaw.training.optimizer import make_optimizer, set_lr, trainable_parameters
from thaw.training.schedule import factor_at
from thaw.training.skipping import reason_to_skip
from thaw.training.sources import PhaseSources, Source, batches, global_batches
from thaw.training.standardise import fit_standardisation
from thaw.training.steps import STEPS, AboveCut, StepModel
from thaw.training.validation import UNUSABLE, Validated, validate


class OutOfMemory(Exception):
    """A training step did not fit into memory."""


def fit(run: FitContext, sources_of: Callable[[int], PhaseSources]) -> Progress:
    """Train every phase that is not done yet and leave the weights of the last phase that is kept in the classifier.

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


@dataclass(frozen=True)
class ActivePhase:
    """Everything one phase trains with, from its thaw on.

    model: what lies above the cut, of the classifier as `Process.wrap` made it. solver: where the head is solved, in
    the main process only.
    """

    run: FitContext
    phase: ResolvedPhase
    cut: Cut
    sources: PhaseSources
    model: StepModel
    optimizer: Optimizer
    loss: Loss
    solver: HeadSolver | None


def _fit_phase(run: FitContext, index: int, sources: PhaseSources, progress: Progress) -> Progress:
    phase, checkpoints = run.phases[index], run.checkpoints
    active = _begin(run, phase, sources)
    if progress.epoch or progress.batch_size:
        checkpoints.load("last", active.optimizer)
    else:
        progress = replace(progress, batch_size=phase.batch_size)
        checkpoints.save("last", progress, active.optimizer)
    epochs = min(phase.epochs, len(PENALTIES)) if phase.solver == "lbfgs" else phase.epochs
    while progress.epoch < epochs and not _is_over(run, phase, progress):
        try:
            record = _fit_epoch(active, progress)
        except OutOfMemory as error:
            progress = _halve_batch(run, phase, progress, error)
            active = _begin(run, phase, sources)
            checkpoints.load("last", active.optimizer)
            continue
        progress = replace(progress, epoch=progress.epoch + 1, records=(*progress.records, record))
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


def _begin(run: FitContext, phase: ResolvedPhase, sources: PhaseSources) -> ActivePhase:
    """Thaw what the phase trains, and make everything it trains with."""
    classifier = run.classifier
    cut = classifier.backbone.cut(phase.cut)
    classifier.backbone.thaw(cut, phase.batchnorm)
    loss = make_loss(classifier.task, run.settings.class_weights, phase.label_smoothing)
    solves = phase.solver == "lbfgs" and run.process.is_main
    norms = _norms_to_fold(classifier, phase, cut, sources.train)
    above = AboveCut(run.process.wrap(classifier), cut.position, run.settings.precision, norms)
    return ActivePhase(
        run=run,
        phase=phase,
        cut=cut,
        sources=sources,
        model=STEPS[run.settings.steps](above),
        optimizer=make_optimizer(trainable_parameters(classifier), phase),
        loss=loss,
        solver=HeadSolver(classifier, sources.train, loss) if solves else None,
    )


def _norms_to_fold(classifier: Classifier, phase: ResolvedPhase, cut: Cut, source: Source) -> FrozenNorms:
    """The norms above a cut that keep their statistics, where there is anything above it but the head."""
    if phase.batchnorm == "train" or cut.position == classifier.backbone.head_position:
        return {}
    inputs, _ = source.batch(np.arange(1), epoch=0)
    return frozen_norms(classifier, cut.position, inputs)


def _fit_epoch(active: ActivePhase, progress: Progress) -> EpochRecord:
    """One epoch of training, or one penalty where the head is solved; then validation.

    All processes get the record of the main one, so that they decide the same.
    """
    started, process = time.perf_counter(), active.run.process
    if active.phase.solver == "lbfgs":
        lr, penalty = None, PENALTIES[progress.epoch]
        train_loss = _solve(active, penalty)
    else:
        penalty = None
        lr, train_loss = _train_epoch(active, progress)
    found = _validated(active, progress) if math.isfinite(train_loss) else UNUSABLE
    record = EpochRecord(
        phase=active.phase.name,
        epoch=progress.epoch + 1,
        cut=active.cut.name,
        lr=lr,
        train_loss=train_loss,
        val=found.values,
        seconds=time.perf_counter() - started,
        penalty=penalty,
        without=found.without,
    )
    main, *_ = process.gathered(json.dumps(record.to_json()))
    return EpochRecord.from_json(json.loads(main))


def _validated(active: ActivePhase, progress: Progress) -> Validated:
    """What validation measures after an epoch, or measured after the one that is repeated."""
    if active.run.settings.repeated:
        of_phase = [record for record in active.run.settings.repeated if record.phase == active.phase.name]
        earlier = of_phase[progress.epoch]
        return Validated(earlier.val, earlier.without)
    assert active.sources.val is not None
    return validate(active.run.classifier, active.cut, active.sources.val, active.run.settings, active.run.process)


def _solve(active: ActivePhase, penalty: float) -> float:
    """Fit the head for a penalty in the main process, which has all features; the others take it from there."""
    process, solver = active.run.process, active.solver
    loss = process.from_main(lambda: repr(solver.solve(penalty)) if solver else "")
    _share(process, active.run.classifier.head.parameters())
    return float(loss)


def _train_epoch(active: ActivePhase, progress: Progress) -> tuple[float, float]:
    """Train on one view of every image; gives the learning rate of the last step and the mean loss."""
    phase, source, process, epoch = active.phase, active.sources.train, active.run.process, progress.epoch
    seed = derive_seed(active.run.settings.seed, phase.name)
    # Dropout differs between processes, which have different images.
    torch.manual_seed(derive_seed(seed, epoch) + process.rank)
    batch_size = progress.batch_size or phase.batch_size
    wanted = global_batches(len(source), batch_size, epoch, seed)
    steps = len(wanted)
    active.model.train()
    sizes = (len(process.part(batch)) for batch in wanted)
    with _memory_watched():
        active.model.prepare(sizes, lambda images: source.batch(np.arange(images), epoch)[0])
    plateau = plateau_factor(progress.records, phase) if phase.schedule == "plateau" else 1.0
    total, factor = torch.zeros((), device=active.run.classifier.device), 1.0
    parts = batches(source, batch_size, epoch, seed, process)
    for step, (batch, (inputs, targets)) in enumerate(zip(wanted, parts, strict=True)):
        loss, share = active.loss, _share_of_loss(active, batch, targets)
        if phase.mixup:
            blend = draw_blend(phase.mixup, len(targets), derive_seed(seed, "mixup", epoch, step), targets.device)
            inputs, loss = blend.inputs(inputs), blend.loss(loss)
        factor = plateau * factor_at(phase, epoch * steps + step, steps)
        set_lr(active.optimizer, factor)
        value = _train_step(active, inputs, targets, loss, share)
        total += value * (share * len(batch))
    if phase.batchnorm == "train":
        # Each process has its own running statistics.
        _share(process, active.run.classifier.buffers())
    return phase.lr * factor, float(process.total(total) / len(source))


def _share_of_loss(active: ActivePhase, batch: np.ndarray, targets: Tensor) -> float | Tensor:
    """The weight of this process's part of a batch in the loss of all of it, 0..1."""
    if active.run.process.count == 1:
        return 1.0
    task, weights = active.run.classifier.task, active.run.settings.class_weights
    whole = active.sources.train.targets[to_device(batch, targets.device)]
    return total_weight(task, weights, targets) / total_weight(task, weights, whole)


def _train_step(active: ActivePhase, inputs: AtCut, targets: Tensor, loss: Loss, share: float | Tensor) -> Tensor:
    """Forward, backward and update on one batch; gives the loss of this process's part, a scalar on the device."""
    with _memory_watched():
        value = loss(active.model(*inputs), targets)
        active.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, whose parts may differ in size and in the weight of their classes.
        (value * (share * active.run.process.count)).backward()
        active.optimizer.step()
    return value.detach()


@contextmanager
def _memory_watched() -> Iterator[None]:
    """Raises `OutOfMemory` where memory ran out in the block."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        # PyTorch's CPU allocator has no exception type of its own.
        if "allocate memory" in str(error):
            raise OutOfMemory(str(error)) from error
        raise


def _share_weights(run: FitContext) -> None:
    """Every process goes on with the weights of the main one, which it may be waited for."""
    run.process.barrier()
    _share(run.process, run.classifier.state_dict().values())


def _share(process: Process, values: Iterable[Tensor]) -> None:
    for value in values:
        process.broadcast(value.detach())


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
        outcome = "kept" if gain.is_kept else "not kept"
        run.on_note(f"phase {gain.phase} is {outcome}: {gain_text(gain, run.settings.monitor)}")
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
    return _target_reached(run, progress.records, gains) is not None or should_stop(
        progress.records, phase, run.settings.monitor
    )


def _target_reached(run: FitContext, records: Sequence[EpochRecord], gains: Sequence[PhaseGain]) -> str | None:
    settings = run.settings
    return target_reached(kept_record(records, gains, settings.monitor), settings.target, settings.val_images)


def _advice(index: int, phase: ResolvedPhase, record: EpochRecord) -> str:
    """Where a phase diverged, and what to try."""
    kept = "the best weights so far are kept"
    if record.lr is None:
        return f"at penalty {record.penalty:.2g}; try --set phases.{index}.solver=optimizer; {kept}"
    return f"at learning rate {record.lr:.2g}; try --set phases.{index}.lr={phase.lr / 10:.2g}; {kept}"


def _halve_batch(run: FitContext, phase: ResolvedPhase, progress: Progress, error: OutOfMemory) -> Progress:
    """The progress with half the batch size.

    Raises:
        TrainingError: One image alone does not fit, or other processes take part, whose step this one cannot repeat.
    """
    batch_size = progress.batch_size or phase.batch_size
    if batch_size == 1:
        raise TrainingError(f"phase {phase.name}: one image alone does not fit into memory ({error})") from error
    if run.process.count > 1:
        raise TrainingError(
            f"phase {phase.name}: a process is out of memory at batch size {batch_size} of all {run.process.count} "
            f"processes ({error}); set a smaller batch_size and start a new run"
        ) from error
    note = f"phase {phase.name}: out of memory at batch size {batch_size}; continuing with {batch_size // 2}"
    run.on_note(note)
    return replace(progress, batch_size=batch_size // 2, notes=(*progress.notes, note))
