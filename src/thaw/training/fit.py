"""The training loop: run, epoch, step.

A run trains its phases one after the other. All randomness of an epoch is derived from (seed, phase, epoch) and every
decision from the records, so a run that was killed goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from thaw.backbones.contract import Cut
from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.errors import TrainingError
from thaw.features.torch_runner import Precision, autocast
from thaw.metrics import MetricValues, measure
from thaw.recipe import Monitor, Phase
from thaw.seeds import derive_seed
from thaw.training import checkpoint
from thaw.training.arithmetic import training_arithmetic
from thaw.training.checkpoint import Progress
from thaw.training.gain import reason_to_skip, target_reached
from thaw.training.head_solver import PENALTIES, HeadSolver
from thaw.training.history import EpochRecord, best_index, divergence, plateau_factor, should_stop
from thaw.training.loss import Loss, make_loss
from thaw.training.mixup import draw_blend
from thaw.training.optimizer import set_rate
from thaw.training.schedule import factor_at
from thaw.training.sources import Source, batches
from thaw.training.state import TrainingState, load_weights, save, weights_of


@dataclass(frozen=True)
class FitSettings:
    """What holds for every phase of a run; `val_images` is how many images validation has."""

    seed: int
    precision: Precision
    monitor: Monitor
    class_weights: Tensor | None
    checkpoints: Path
    val_images: int
    target: Mapping[Monitor, float] | None = None


@dataclass(frozen=True)
class PhaseSources:
    """Training and validation inputs at the cut of one phase."""

    train: Source
    val: Source


OnEpoch = Callable[[Sequence[EpochRecord], bool], None]
"""Called after each epoch with all records of the run and whether the newest is the best so far."""

OnNote = Callable[[str], None]
"""Called with one sentence when something went other than planned."""


@dataclass(frozen=True)
class FitCallbacks:
    """Who is told what happens."""

    on_epoch: OnEpoch
    on_note: OnNote


class OutOfMemory(Exception):
    """A step did not fit into memory."""


def fit(
    classifier: Classifier,
    phases: Sequence[Phase],
    sources_of: Callable[[int], PhaseSources],
    settings: FitSettings,
    callbacks: FitCallbacks,
) -> Progress:
    """Train every phase that is not done yet and leave the best weights of the whole run in the classifier.

    `sources_of(i)` gives the inputs of phase `i`; it is asked when the phase begins, with the classifier holding the
    weights that the phase starts from. Raises `TrainingError` when no epoch gave a usable result.
    """
    folder = settings.checkpoints
    saved = checkpoint.read(folder, "last")
    progress = saved.progress if saved else Progress()
    untrained = {key: value.clone() for key, value in weights_of(classifier, phases).items()}
    for index in range(progress.phase, len(phases)):
        if why := _reason_to_leave_out(progress, phases, index, settings):
            callbacks.on_note(why)
            continue
        if not load_weights(classifier, folder, "best"):
            classifier.load_state_dict(untrained, strict=False)
        sources = sources_of(index)
        progress = _fit_phase(classifier, phases, index, sources, settings, callbacks, replace(progress, phase=index))
        progress = replace(progress, phase=index + 1, epoch=0, batch_size=None)
        save(classifier, phases, progress, folder, "last")
    if reached := target_reached(progress.records, settings.target, settings.val_images):
        callbacks.on_note(reached)
    if not load_weights(classifier, folder, "best"):
        raise TrainingError("no epoch of any phase gave a finite loss: " + " ".join(progress.notes))
    classifier.eval()
    return progress


def _reason_to_leave_out(progress: Progress, phases: Sequence[Phase], index: int, settings: FitSettings) -> str | None:
    if index == progress.phase and progress.epoch:
        return None
    if target_reached(progress.records, settings.target, settings.val_images):
        return f"phase {phases[index].name} is left out: the target is reached"
    return reason_to_skip(progress.records, phases, index, settings.monitor, settings.val_images)


def _fit_phase(
    classifier: Classifier,
    phases: Sequence[Phase],
    index: int,
    sources: PhaseSources,
    settings: FitSettings,
    callbacks: FitCallbacks,
    progress: Progress,
) -> Progress:
    phase = phases[index]
    cut = classifier.backbone.cut(phase.cut)
    classifier.backbone.thaw(cut, phase.batchnorm)
    state = TrainingState(classifier, phases, index, settings.checkpoints)
    if progress.epoch or progress.batch_size:
        state.restore_last()
    else:
        progress = replace(progress, batch_size=phase.batch_size)
        state.save_last(progress)
    loss = make_loss(classifier.task, settings.class_weights, phase.label_smoothing)
    solver = HeadSolver(classifier, sources.train, loss) if phase.solver == "lbfgs" else None
    epochs = min(phase.epochs, len(PENALTIES)) if solver else phase.epochs
    while progress.epoch < epochs and not _is_over(progress.records, phase, settings):
        try:
            record = _fit_epoch(classifier, phase, cut, sources, settings, progress, state.optimizer, loss, solver)
        except OutOfMemory as error:
            progress = _halve_batch(progress, phase, callbacks, error)
            state = TrainingState(classifier, phases, index, settings.checkpoints)
            state.restore_last()
            continue
        progress = replace(progress, epoch=progress.epoch + 1, records=(*progress.records, record))
        is_best = best_index(progress.records, settings.monitor) == len(progress.records) - 1
        if is_best:
            save(classifier, phases, progress, settings.checkpoints, "best")
        callbacks.on_epoch(progress.records, is_best)
        if why := divergence(progress.records, phase):
            note = (
                f"phase {phase.name} stopped in epoch {record.epoch}: {why} at learning rate {record.lr:.2g}; "
                f"try --set phases.{index}.lr={phase.lr / 10:.2g}. The best weights so far are kept."
            )
            callbacks.on_note(note)
            return replace(progress, notes=(*progress.notes, note))
        state.save_last(progress)
    return progress


def _is_over(records: Sequence[EpochRecord], phase: Phase, settings: FitSettings) -> bool:
    """Whether a phase has nothing more to gain, or the run nothing more to prove."""
    reached = target_reached(records, settings.target, settings.val_images)
    return reached is not None or should_stop(records, phase, settings.monitor)


def _fit_epoch(
    classifier: Classifier,
    phase: Phase,
    cut: Cut,
    sources: PhaseSources,
    settings: FitSettings,
    progress: Progress,
    optimizer: Optimizer,
    loss: Loss,
    solver: HeadSolver | None,
) -> EpochRecord:
    started = time.perf_counter()
    if solver:
        lr = PENALTIES[progress.epoch]
        train_loss = solver.solve(lr)
    else:
        lr, train_loss = _train_epoch(classifier, phase, cut, sources.train, settings, progress, optimizer, loss)
    return EpochRecord(
        phase=phase.name,
        epoch=progress.epoch + 1,
        cut=cut.name,
        lr=lr,
        train_loss=train_loss,
        val=validate(classifier, cut, sources.val, settings.precision) if math.isfinite(train_loss) else _no_result(),
        seconds=time.perf_counter() - started,
    )


def _train_epoch(
    classifier: Classifier,
    phase: Phase,
    cut: Cut,
    source: Source,
    settings: FitSettings,
    progress: Progress,
    optimizer: Optimizer,
    loss: Loss,
) -> tuple[float, float]:
    """One view of every image, step by step; gives the last step's learning rate and the mean loss."""
    seed = derive_seed(settings.seed, phase.name)
    torch.manual_seed(derive_seed(seed, progress.epoch))
    batch_size = progress.batch_size or phase.batch_size
    steps = -(-len(source) // batch_size)
    slowdown = plateau_factor(progress.records, phase) if phase.schedule == "plateau" else 1.0
    classifier.train()
    total, seen, factor = torch.zeros((), device=classifier.device), 0, 1.0
    for step, (inputs, targets) in enumerate(batches(source, batch_size, progress.epoch, seed)):
        step_loss = loss
        if phase.mixup:
            mixed = derive_seed(seed, "mixup", progress.epoch, step)
            blend = draw_blend(phase.mixup, len(inputs), mixed, inputs.device)
            inputs, step_loss = blend.inputs(inputs), blend.loss(loss)
        factor = slowdown * factor_at(phase, progress.epoch * steps + step, steps)
        set_rate(optimizer, factor)
        value = _step(classifier, cut, inputs, targets, step_loss, optimizer, settings.precision)
        total, seen = total + value * len(targets), seen + len(targets)
    return phase.lr * factor, float(total / seen)


def _step(
    classifier: Classifier,
    cut: Cut,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    optimizer: Optimizer,
    precision: Precision,
) -> Tensor:
    try:
        with training_arithmetic(classifier.device, precision):
            logits = classifier.above(inputs, cut.position)
        value = loss(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise OutOfMemory(str(error)) from error
        raise
    return value.detach()


def validate(classifier: Classifier, cut: Cut, source: Source, precision: Precision) -> MetricValues:
    """Metrics of the classifier on a source at a cut, in eval mode."""
    probabilities, targets = probabilities_at(classifier, cut.position, source, precision)
    if not np.isfinite(probabilities).all():
        return _no_result()
    return measure(probabilities, targets, classifier.task)


def probabilities_at(
    classifier: Classifier, position: int, source: Source, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, classes) of everything in a source at a cut, in its order and in eval mode, and its targets."""
    answers = [
        (probabilities.cpu().numpy(), targets.cpu().numpy())
        for _, probabilities, targets in _answers(classifier, position, source, precision)
    ]
    probabilities, targets = map(np.concatenate, zip(*answers, strict=True))
    return probabilities, targets


def outputs_at(classifier: Classifier, position: int, source: Source, precision: Precision) -> LabelledOutputs:
    """What the classifier makes of everything in a source at a cut, in its order and in eval mode."""
    answers = [
        tuple(part.cpu().numpy() for part in (pooled.float(), probabilities, targets))
        for pooled, probabilities, targets in _answers(classifier, position, source, precision)
    ]
    return LabelledOutputs(*map(np.concatenate, zip(*answers, strict=True)))


def _answers(
    classifier: Classifier, position: int, source: Source, precision: Precision
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pooled features, probabilities and targets, batch by batch."""
    classifier.eval()
    top = classifier.backbone.head_position
    for inputs, targets in batches(source, batch_size=64, epoch=0, shuffle_seed=None):
        with torch.no_grad(), autocast(classifier.device, precision):
            pooled = classifier.backbone.run(inputs, position, top)
            probabilities = classifier.probabilities(classifier.head(pooled))
        yield pooled, probabilities, targets


def _no_result() -> MetricValues:
    return MetricValues.undefined()


def _halve_batch(progress: Progress, phase: Phase, callbacks: FitCallbacks, error: OutOfMemory) -> Progress:
    batch_size = progress.batch_size or phase.batch_size
    if batch_size == 1:
        raise TrainingError(f"phase {phase.name}: one image alone does not fit into memory ({error})") from error
    note = f"phase {phase.name}: out of memory at batch size {batch_size}; going on with {batch_size // 2}"
    callbacks.on_note(note)
    return replace(progress, batch_size=batch_size // 2, notes=(*progress.notes, note))
