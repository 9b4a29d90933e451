"""One epoch of a phase, and its steps.

All randomness of an epoch is derived from (seed, phase, epoch), so that it can be repeated.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from thaw.backbones.cuts import Cut
from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.device import ran_out_of_memory, seed_generators, to_device
from thaw.formats import count
from thaw.recipe import ResolvedPhase
from thaw.seeds import derive_seed
from thaw.training.checkpoint import Progress
from thaw.training.context import FitContext
from thaw.training.folding import FrozenNorms, frozen_norms
from thaw.training.head_solver import PENALTIES, HeadSolver
from thaw.training.history import EpochRecord, plateau_factor
from thaw.training.loss import Loss, make_loss, total_weight
from thaw.training.mixup import draw_blend
from thaw.training.optimizer import make_optimizer, move_state, set_lr, step, trainable_parameters
from thaw.training.schedule import factor_at
from thaw.training.sources import PhaseSources, Source, batches, global_batches
from thaw.training.steps import STEPS, AboveCut, StepModel
from thaw.training.validation import UNUSABLE, Validated, validate


class OutOfMemory(Exception):
    """A training step did not fit into memory."""


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


def begin_phase(run: FitContext, phase: ResolvedPhase, sources: PhaseSources) -> ActivePhase:
    """Thaw what the phase trains, and make everything it trains with."""
    return _begin_at(run, phase, run.classifier.backbone.cut(phase.cut), sources)


def freeze_lowest(active: ActivePhase, sources: PhaseSources, epoch: int) -> ActivePhase:
    """The phase as it goes on after some epochs: with the lowest of its stages frozen, if they are to be.

    What is above them is extracted from the inputs that the phase began with, so it does not depend on how often the
    run was interrupted. The optimizer keeps the state of what still trains.

    Args:
        active: The phase, with the weights after those epochs.
        sources: The inputs at the cut that the phase began with.
        epoch: How many epochs of the phase are done.
    """
    run, phase, backbone = active.run, active.phase, active.run.classifier.backbone
    planned = backbone.cut(phase.cut)
    cut = backbone.raised(planned, sum(after <= epoch for after in phase.freeze_after))
    if cut.position == active.cut.position:
        return active
    run.on_note(f"phase {phase.name}: everything below {cut.name} is frozen after {count(epoch, 'epoch')}")
    above = _begin_at(run, phase, cut, sources.above(backbone, planned.position, cut.position))
    move_state(active.optimizer, above.optimizer)
    return above


def _begin_at(run: FitContext, phase: ResolvedPhase, cut: Cut, sources: PhaseSources) -> ActivePhase:
    classifier = run.classifier
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


def fit_epoch(active: ActivePhase, progress: Progress) -> EpochRecord:
    """One epoch of training, or one penalty where the head is solved; then validation.

    All processes get the record of the main one, so that they decide the same.
    """
    started, process = time.perf_counter(), active.run.process
    if active.phase.solver == "lbfgs":
        lr, penalty = None, PENALTIES[progress.epoch]
        train_loss = _solve(active, penalty)
    else:
        penalty = None
        with _memory_watched():
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
    process.share(active.run.classifier.head.parameters())
    return float(loss)


def _train_epoch(active: ActivePhase, progress: Progress) -> tuple[float, float]:
    """Train on one view of every image; gives the learning rate of the last step and the mean loss."""
    phase, source, process, epoch = active.phase, active.sources.train, active.run.process, progress.epoch
    seed = derive_seed(active.run.settings.seed, phase.name)
    batch_size = progress.batch_size or phase.batch_size
    wanted = global_batches(len(source), batch_size, epoch, seed)
    steps = len(wanted)
    active.model.train()
    sizes = (len(process.part(batch)) for batch in wanted)
    active.model.prepare(sizes, lambda images: source.batch(np.arange(images), epoch)[0])
    # After what is captured, which is not in every epoch. Dropout differs between processes, whose images differ.
    seed_generators(derive_seed(seed, epoch) + process.rank, active.run.classifier.device)
    plateau = plateau_factor(progress.records, phase) if phase.schedule == "plateau" else 1.0
    total, factor = torch.zeros((), device=active.run.classifier.device), 1.0
    parts = batches(source, batch_size, epoch, seed, process)
    for number, (batch, (inputs, targets)) in enumerate(zip(wanted, parts, strict=True)):
        loss, share = active.loss, _share_of_loss(active, batch, targets)
        if phase.mixup:
            blend = draw_blend(phase.mixup, len(targets), derive_seed(seed, "mixup", epoch, number), targets.device)
            inputs, loss = blend.inputs(inputs), blend.loss(loss)
        factor = plateau * factor_at(phase, epoch * steps + number, steps)
        set_lr(active.optimizer, factor)
        value = _train_step(active, inputs, targets, loss, share)
        total += value * (share * len(batch))
    if phase.batchnorm == "train":
        # Each process has its own running statistics.
        process.share(active.run.classifier.buffers())
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
    value = loss(active.model(*inputs), targets)
    active.optimizer.zero_grad(set_to_none=True)
    # Gradients are averaged over the processes, whose parts may differ in size and in the weight of their classes.
    (value * (share * active.run.process.count)).backward()
    step(active.optimizer)
    return value.detach()


@contextmanager
def _memory_watched() -> Iterator[None]:
    """Raises `OutOfMemory` where memory ran out in the block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if ran_out_of_memory(error):
            raise OutOfMemory(str(error)) from error
        raise
