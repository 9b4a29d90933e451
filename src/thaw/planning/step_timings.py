"""How training steps are run, found by timing them: precision, memory layout, eager or captured, images per step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from thaw.backbones.stages import AtCut
from thaw.device import free_unused
from thaw.errors import RecipeError
from thaw.features.engines import failure, required
from thaw.features.probe import MIN_SPEEDUP, TOLERANCE, distance_at_cut
from thaw.features.torch_runner import Precision
from thaw.planning.step_timer import StepMode, StepTimer
from thaw.recipe import USUAL_BATCH, MemoryFormat, Recipe, Steps
from thaw.training.autocast import training_autocast

_BATCHES = (32, 64, 128, 256)
_ENOUGH = 0.95
"""Fraction of the speed of the fastest batch size with which a smaller one is enough."""

_LEAST_STEPS = 50
"""Steps of an epoch below which no larger batch is taken, because the weights would be updated too seldom."""

_LAYOUT_PAYS, _COMPILE_PAYS = 120.0, 600.0
"""Seconds of training from which it pays to measure the other layout of maps, which takes 6 to 12 s for each size of
batches, and compiled steps, which take most of a minute for each; an epoch has two sizes."""

_NO_SPEED = 1e-9
"""Images per second where a step does not run at all, by which a forecast can still divide."""

_NEEDED = f"needed: {MIN_SPEEDUP}x, and at most {TOLERANCE:.0%}"

Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True)
class Chosen(Generic[Value]):
    """A value and the reason for it, which is empty where there was nothing to choose."""

    value: Value
    reason: str = ""


@dataclass(frozen=True)
class StepTimings:
    """How training steps are run, and how fast.

    batch_sizes, rates: for each phase, images per step of all processes together, and images per second of one process.
    batch_reason: why batches have that size.
    """

    precision: Chosen[Precision]
    steps: Chosen[Steps]
    memory_format: Chosen[MemoryFormat]
    batch_sizes: tuple[int, ...]
    batch_reason: str
    rates: tuple[float, ...]


@dataclass(frozen=True)
class _Job:
    """What the choices are for: `images` per epoch and process, in phases of which `deciding` is the first that thaws.

    Deeper ones may be skipped, and validation judges what they gain. `None` where only the head trains.
    """

    recipe: Recipe
    timer: StepTimer
    images: int
    processes: int
    deciding: int | None

    def seconds(self, index: int, mode: StepMode) -> float:
        """How long a phase takes at most."""
        return self.timer.phases[index].epochs * self.images / max(self.timer.rate(index, mode), _NO_SPEED)


def assumed_steps(recipe: Recipe, timer: StepTimer, rate: float, processes: int) -> StepTimings:
    """How steps are run and how fast, as long as nothing is timed: in fp32, and as fast as the frozen part.

    Forward and backward through the top third of a network compute as much as one forward pass through all of it;
    those of a head take no time.

    Args:
        recipe: With its phases.
        timer: For them; does not time anything.
        rate: Images per second through the frozen part.
        processes: How many train together.

    Raises:
        RecipeError: The recipe asks for steps that this run cannot have.
    """
    job = _Job(recipe, timer, 0, processes, None)
    _check_steps(job)
    precision: Precision = "fp32" if recipe.precision == "auto" else recipe.precision
    steps: Steps = "eager" if recipe.steps == "auto" else recipe.steps
    mode = StepMode(precision, steps, _first_layout(job))
    sizes = tuple(_size_of(job, index, USUAL_BATCH) for index in range(len(timer.phases)))
    memory_format = _memory_format(job, mode)
    head = timer.classifier.backbone.head_position
    rates = tuple(rate if timer.position(index) < head else math.inf for index in range(len(sizes)))
    return StepTimings(Chosen(precision), Chosen(steps), memory_format, sizes, "", rates)


def time_steps(recipe: Recipe, timer: StepTimer, head: AtCut, train_images: int, processes: int) -> StepTimings:
    """Choose how steps are run, as far as the recipe leaves it open, and time those of every phase.

    Args:
        recipe: With its phases.
        timer: Has what lies at their cuts.
        head: What lies at the head for the same images, in fp32.
        train_images: Images of an epoch.
        processes: How many train together.

    Raises:
        RecipeError: The recipe asks for steps that this run cannot have.
    """
    job = _Job(recipe, timer, train_images // processes, processes, timer.first_thawed())
    _check_steps(job)
    if recipe.steps in ("auto", "eager"):
        return _timed(job, head)
    with required(f"steps {recipe.steps}:"):
        return _timed(job, head)


def _timed(job: _Job, head: AtCut) -> StepTimings:
    """As `time_steps`, for steps that this run can have."""
    timer, processes = job.timer, job.processes
    mode = StepMode("fp32", "eager", _first_layout(job))
    steps = _steps(job, mode)
    precision = _precision(job, replace(mode, steps=steps.value), head)
    mode = replace(mode, steps=steps.value, precision=precision.value)
    memory_format = _memory_format(job, mode)
    mode = replace(mode, memory_format=memory_format.value)
    batch = _batch_size(job, mode)
    steps = _compiled(job, replace(mode, batch_size=batch.value), steps)
    mode = replace(mode, steps=steps.value)
    sizes = tuple(_size_of(job, index, batch.value) for index in range(len(timer.phases)))
    rates = tuple(_rate(timer, index, timer.with_size(mode, size // processes)) for index, size in enumerate(sizes))
    timer.classifier.backbone.use_memory_format(memory_format.value)
    free_unused(timer.device)
    return StepTimings(precision, steps, memory_format, sizes, batch.reason, rates)


def _rate(timer: StepTimer, index: int, mode: StepMode) -> float:
    """Images per second of a phase; where a batch does not fit into memory, with one that was halved until it does.

    Training halves it too. Where a single image does not fit, a forecast can only say that it takes forever.
    """
    while (rate := timer.rate(index, mode)) == 0 and mode.batch_size > 1:
        mode = timer.with_size(mode, mode.batch_size // 2)
    return rate or _NO_SPEED


def _check_steps(job: _Job) -> None:
    """Raise `RecipeError` where the recipe asks for steps that this run cannot have."""
    wanted, device = job.recipe.steps, job.timer.device
    if wanted == "cuda_graph" and not job.timer.is_cuda:
        raise RecipeError(f"steps cuda_graph: needs a CUDA device, and this run trains on {device}; use auto")
    if wanted not in ("auto", "eager") and job.processes > 1:
        raise RecipeError(f"steps {wanted}: is for one process, and {job.processes} train together; use auto")


def _first_layout(job: _Job) -> MemoryFormat:
    """The layout that steps are timed in first."""
    wanted = job.recipe.memory_format
    return job.timer.classifier.backbone.memory_format if wanted == "auto" else wanted


def _steps(job: _Job, mode: StepMode) -> Chosen[Steps]:
    """Eager or captured; what compiling gains is measured once the rest is known."""
    wanted, timer = job.recipe.steps, job.timer
    if wanted != "auto":
        return Chosen(wanted, "as requested")
    if not timer.is_cuda:
        return Chosen("eager")
    if job.deciding is None:
        return Chosen("eager", "only the head trains")
    if job.processes > 1:
        return Chosen("eager", "gradients are averaged over several processes")
    captured = replace(mode, steps="cuda_graph")
    try:
        speedup, distance = timer.speedup(job.deciding, captured, mode), timer.distance(job.deciding, captured)
    # Networks that cannot be captured fail in different forms; eager steps remain.
    except RuntimeError as error:
        return Chosen("eager", f"a CUDA graph {failure(error)}")
    measured = f"a CUDA graph trains the thawed stages at {speedup:.2f}x the speed; gradients differ by {distance:.1%}"
    value: Steps = "cuda_graph" if _is_better(speedup, distance) else "eager"
    return Chosen(value, f"{measured}; {_NEEDED}")


def _precision(job: _Job, mode: StepMode, head: AtCut) -> Chosen[Precision]:
    """By the speed, and the outputs for equal features at the cut of the deciding phase."""
    if job.recipe.precision != "auto":
        return Chosen(job.recipe.precision, "as requested")
    if job.deciding is None:
        return Chosen("fp32", "only the head trains, which is fast in any precision")
    timer, classifier, cut = job.timer, job.timer.classifier, job.timer.position(job.deciding)
    with torch.no_grad(), training_autocast(classifier.device, "bf16"):
        rounded = classifier.backbone.advance(timer.features[job.deciding], cut, classifier.backbone.head_position)
    distance = distance_at_cut(rounded, head)
    speedup = timer.speedup(job.deciding, replace(mode, precision="bf16"), mode)
    measured = f"bf16 trains the thawed stages at {speedup:.2f}x the speed of fp32; outputs differ by {distance:.1%}"
    value: Precision = "bf16" if _is_better(speedup, distance) else "fp32"
    return Chosen(value, f"{measured}; {_NEEDED}")


def _memory_format(job: _Job, mode: StepMode) -> Chosen[MemoryFormat]:
    """Channels last for a network that begins contiguous, where that is faster and training long enough to find out."""
    if not job.timer.is_cuda:
        is_changed = job.recipe.memory_format == "contiguous"
        return Chosen("channels_last", "contiguous is for CUDA devices" if is_changed else "")
    if job.recipe.memory_format != "auto":
        return Chosen(job.recipe.memory_format, "as requested")
    if job.deciding is None or mode.memory_format == "channels_last":
        return Chosen(mode.memory_format)
    if job.seconds(job.deciding, mode) < _LAYOUT_PAYS:
        return Chosen(mode.memory_format, "depthwise convolutions need no preparation in this layout")
    other = replace(mode, memory_format="channels_last")
    speedup = job.timer.speedup(job.deciding, other, mode)
    measured = f"channels_last trains the thawed stages at {speedup:.2f}x the speed of contiguous"
    return Chosen(other.memory_format if speedup >= MIN_SPEEDUP else mode.memory_format, measured)


def _batch_size(job: _Job, mode: StepMode) -> Chosen[int]:
    """The smallest batch of one process that is nearly as fast as any; a CPU is busy with the usual one."""
    if job.deciding is None or not job.timer.is_cuda:
        return Chosen(USUAL_BATCH)
    sizes = [size for size in _BATCHES if size == USUAL_BATCH or size * _LEAST_STEPS <= job.images]
    rates = {size: job.timer.rate(job.deciding, replace(mode, batch_size=size)) for size in sizes}
    enough = next(size for size, rate in rates.items() if rate >= _ENOUGH * max(rates.values()))
    measured = ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in rates.items())
    limit = f"; more would leave fewer than {_LEAST_STEPS} steps in an epoch" if len(sizes) < len(_BATCHES) else ""
    return Chosen(enough, f"images per second by batch size: {measured}{limit}")


def _size_of(job: _Job, index: int, measured: int) -> int:
    """The batch size of a phase, of all processes together; a linear head is solved with all images at once."""
    phase = job.timer.phases[index]
    if phase.batch_size != "auto":
        return phase.batch_size
    return USUAL_BATCH if job.recipe.can_solve(phase) else max(USUAL_BATCH, measured * job.processes)


def _compiled(job: _Job, mode: StepMode, chosen: Chosen[Steps]) -> Chosen[Steps]:
    """Compiled steps in place of the chosen ones, where training is long enough to find out."""
    is_open = job.recipe.steps == "auto" and job.processes == 1 and job.timer.is_cuda
    if job.deciding is None or not is_open or job.seconds(job.deciding, mode) < _COMPILE_PAYS:
        return chosen
    compiled = replace(mode, steps="compiled")
    try:
        speedup, distance = job.timer.speedup(job.deciding, compiled, mode), job.timer.distance(job.deciding, compiled)
    # Compilers are missing or fail in different forms; the chosen steps remain.
    except RuntimeError as error:
        return replace(chosen, reason=f"{chosen.reason}; compiling {failure(error)}")
    measured = f"{chosen.reason}; compiled {speedup:.2f}x the speed of that, gradients differ by {distance:.1%}"
    return Chosen("compiled" if _is_better(speedup, distance) else chosen.value, measured)


def _is_better(speedup: float, distance: float) -> bool:
    """Whether a mode is so much faster that it is taken, and differs so little that it may be."""
    return speedup >= MIN_SPEEDUP and distance <= TOLERANCE
