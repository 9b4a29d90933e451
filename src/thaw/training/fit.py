"""The training loop: run, epoch, step.

A run trains its phases one after the other. All randomness of an epoch is derived from (seed, phase, epoch) and every
decision from the records, so a killed run resumes from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thaw.backbones.contract import Cut
from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.errors import TrainingError
from thaw.features.torch_runner import Precision
from thaw.metrics import MetricValues, measure
from thaw.recipe import Phase
from thaw.seeds import derive_seed
from thaw.training import checkpoint
from thaw.training.autocast import training_autocast
from thaw.training.checkpoint import Progress
from thaw.training.context import FitContext
from thaw.training.gain import reason_to_skip, target_reached
from thaw.training.head_solver import PENALTIES, HeadSolver
from thaw.training.history import EpochRecord, best_index, divergence, plateau_factor, should_stop
from thaw.training.loss import Loss, make_loss
from thaw.training.mixup import draw_blend
from thaw.training.optimizer import make_optimizer, set_lr, trainable_parameters
from thaw.training.outputs import probabilities_at
from thaw.training.schedule import factor_at
from thaw.training.sources import PhaseSources, Source, batches


class OutOfMemory(Exception):
    """A training step did not fit into memory."""


def fit(run: FitContext, sources_of: Callable[[int], PhaseSources]) -> Progress:
    """Train every phase that is not done yet and leave the best weights of the whole run in the classifier.

    Args:
        run: What is trained, how, and what is called along the way.
        sources_of: Gives the inputs of a phase by its index. Called when the phase begins, with the classifier holding
            the weights that the phase starts from.

    Returns:
        The records of all epochs, and the notes of phases that were stopped or changed.

    Raises:
        TrainingError: No epoch of any phase gave a finite loss.
    """
    saved = checkpoint.read(run.settings.checkpoints, "last")
    progress = saved.progress if saved else Progress()
    untrained = {key: value.clone() for key, value in run.checkpoints.weights().items()}
    for index in range(progress.phase, len(run.phases)):
        if reason := _reason_to_skip(run, index, progress):
            run.on_note(reason)
            continue
        if not run.checkpoints.load("best"):
            run.classifier.load_state_dict(untrained, strict=False)
        progress = _fit_phase(run, index, sources_of(index), replace(progress, phase=index))
        progress = replace(progress, phase=index + 1, epoch=0, batch_size=None)
        run.checkpoints.save("last", progress)
    if reached := target_reached(progress.records, run.settings.target, run.settings.val_images):
        run.on_note(reached)
    if not run.checkpoints.load("best"):
        raise TrainingError("no epoch of any phase gave a finite loss: " + " ".join(progress.notes))
    run.classifier.eval()
    return progress


@dataclass(frozen=True)
class ActivePhase:
    """Everything one phase trains with, from its thaw on. model: the classifier as `FitContext.wrap` made it."""

    run: FitContext
    phase: Phase
    cut: Cut
    sources: PhaseSources
    model: nn.Module
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
    epochs = min(phase.epochs, len(PENALTIES)) if active.solver else phase.epochs
    while progress.epoch < epochs and not _is_over(run, phase, progress):
        try:
            record = _fit_epoch(active, progress)
        except OutOfMemory as error:
            progress = _halve_batch(run, phase, progress, error)
            active = _begin(run, phase, sources)
            checkpoints.load("last", active.optimizer)
            continue
        progress = replace(progress, epoch=progress.epoch + 1, records=(*progress.records, record))
        is_best = best_index(progress.records, run.settings.monitor) == len(progress.records) - 1
        if is_best:
            checkpoints.save("best", progress)
        run.on_epoch(progress.records, is_best)
        if reason := divergence(progress.records, phase):
            note = f"phase {phase.name} stopped in epoch {record.epoch}: {reason} {_advice(index, phase, record)}"
            run.on_note(note)
            return replace(progress, notes=(*progress.notes, note))
        checkpoints.save("last", progress, active.optimizer)
    return progress


def _begin(run: FitContext, phase: Phase, sources: PhaseSources) -> ActivePhase:
    """Thaw what the phase trains, and make everything it trains with."""
    classifier = run.classifier
    cut = classifier.backbone.cut(phase.cut)
    classifier.backbone.thaw(cut, phase.batchnorm)
    loss = make_loss(classifier.task, run.settings.class_weights, phase.label_smoothing)
    return ActivePhase(
        run=run,
        phase=phase,
        cut=cut,
        sources=sources,
        model=run.wrap(classifier),
        optimizer=make_optimizer(trainable_parameters(classifier), phase),
        loss=loss,
        solver=HeadSolver(classifier, sources.train, loss) if phase.solver == "lbfgs" else None,
    )


def _fit_epoch(active: ActivePhase, progress: Progress) -> EpochRecord:
    """One epoch of training, or one penalty where the head is solved; then validation."""
    started = time.perf_counter()
    if active.solver:
        lr, penalty = None, PENALTIES[progress.epoch]
        train_loss = active.solver.solve(penalty)
    else:
        penalty = None
        lr, train_loss = _train_epoch(active, progress)
    classifier, val, precision = active.run.classifier, active.sources.val, active.run.settings.precision
    return EpochRecord(
        phase=active.phase.name,
        epoch=progress.epoch + 1,
        cut=active.cut.name,
        lr=lr,
        train_loss=train_loss,
        val=validate(classifier, active.cut, val, precision) if math.isfinite(train_loss) else MetricValues.undefined(),
        seconds=time.perf_counter() - started,
        penalty=penalty,
    )


def _train_epoch(active: ActivePhase, progress: Progress) -> tuple[float, float]:
    """Train on one view of every image; gives the learning rate of the last step and the mean loss."""
    phase, source, process, epoch = active.phase, active.sources.train, active.run.process, progress.epoch
    seed = derive_seed(active.run.settings.seed, phase.name)
    # Dropout differs between processes, which have different images.
    torch.manual_seed(derive_seed(seed, epoch) + process.rank)
    batch_size = progress.batch_size or phase.batch_size
    steps = -(-len(source) // batch_size)
    plateau = plateau_factor(progress.records, phase) if phase.schedule == "plateau" else 1.0
    active.model.train()
    total, seen, factor = torch.zeros((), device=active.run.classifier.device), 0, 1.0
    for step, (inputs, targets) in enumerate(batches(source, batch_size, epoch, seed, process)):
        loss = active.loss
        if phase.mixup:
            blend = draw_blend(phase.mixup, len(targets), derive_seed(seed, "mixup", epoch, step), targets.device)
            inputs, loss = blend.inputs(inputs), blend.loss(loss)
        factor = plateau * factor_at(phase, epoch * steps + step, steps)
        set_lr(active.optimizer, factor)
        value = _train_step(active, inputs, targets, loss)
        total, seen = total + value * len(targets), seen + len(targets)
    total, images = process.total(torch.stack((total, total.new_tensor(seen))))
    return phase.lr * factor, float(total / images)


def _train_step(active: ActivePhase, inputs: AtCut, targets: Tensor, loss: Loss) -> Tensor:
    """Forward, backward and update on one batch; gives the loss, a scalar on the device."""
    try:
        with training_autocast(active.run.classifier.device, active.run.settings.precision):
            logits = active.model(inputs, active.cut.position)
        value = loss(logits.float(), targets)
        active.optimizer.zero_grad(set_to_none=True)
        value.backward()
        active.optimizer.step()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        # PyTorch's CPU allocator has no exception type of its own.
        if "allocate memory" in str(error):
            raise OutOfMemory(str(error)) from error
        raise
    return value.detach()


def validate(classifier: Classifier, cut: Cut, source: Source, precision: Precision) -> MetricValues:
    """Metrics of the classifier on a source at a cut, in eval mode."""
    probabilities, targets = probabilities_at(classifier, cut.position, source, precision)
    if not np.isfinite(probabilities).all():
        return MetricValues.undefined()
    return measure(probabilities, targets, classifier.task)


def _reason_to_skip(run: FitContext, index: int, progress: Progress) -> str | None:
    """Why a phase is not trained, or `None`; a phase that has begun is never skipped."""
    settings, phase = run.settings, run.phases[index]
    if index == progress.phase and progress.epoch:
        return None
    if target_reached(progress.records, settings.target, settings.val_images):
        return f"phase {phase.name} is skipped: the target is reached"
    return reason_to_skip(progress.records, run.phases, index, settings.monitor, settings.val_images)


def _is_over(run: FitContext, phase: Phase, progress: Progress) -> bool:
    """Whether the phase stops early, or the run has reached its target."""
    settings = run.settings
    reached = target_reached(progress.records, settings.target, settings.val_images)
    return reached is not None or should_stop(progress.records, phase, settings.monitor)


def _advice(index: int, phase: Phase, record: EpochRecord) -> str:
    """Where a phase diverged, and what to try."""
    kept = "the best weights so far are kept"
    if record.lr is None:
        return f"at penalty {record.penalty:.2g}; try --set phases.{index}.solver=optimizer; {kept}"
    return f"at learning rate {record.lr:.2g}; try --set phases.{index}.lr={phase.lr / 10:.2g}; {kept}"


def _halve_batch(run: FitContext, phase: Phase, progress: Progress, error: OutOfMemory) -> Progress:
    """The progress with half the batch size; raises `TrainingError` where one image alone does not fit."""
    batch_size = progress.batch_size or phase.batch_size
    if batch_size == 1:
        raise TrainingError(f"phase {phase.name}: one image alone does not fit into memory ({error})") from error
    note = f"phase {phase.name}: out of memory at batch size {batch_size}; continuing with {batch_size // 2}"
    run.on_note(note)
    return replace(progress, batch_size=batch_size // 2, notes=(*progress.notes, note))
