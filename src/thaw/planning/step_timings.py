"""How training steps are run: in which precision, eager or recorded, with how many images; timed on real ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.errors import RecipeError, first_line
from thaw.features.probe import MIN_SPEEDUP, TOLERANCE, distance_at_cut, distance_between
from thaw.features.torch_runner import Precision
from thaw.recipe import USUAL_BATCH, Phase, Recipe, Steps
from thaw.training.autocast import training_autocast
from thaw.training.folding import frozen_norms
from thaw.training.steps import STEPS, AboveCut, StepModel

_WARM_UP, _ROUNDS, _ROUNDS_ON_CUDA = 1, 2, 10
_HOPELESS = 4.0
"""On a CPU a first pass takes up to twice as long as later ones; on a GPU up to a thousand times."""

_BATCHES = (32, 64, 128, 256)
_ENOUGH = 0.95
"""Fraction of the speed of the fastest batch size with which a smaller one is enough."""

_LEAST_STEPS = 50
"""Steps of an epoch below which no larger batch is taken, because the weights would be updated too seldom."""

_COMPILE_PAYS = 600.0
"""Seconds of training from which compiling pays: it takes most of a minute for each of the two sizes of batches."""


Value = TypeVar("Value")


@dataclass(frozen=True)
class Chosen(Generic[Value]):
    """A value and the reason for it."""

    value: Value
    reason: str


@dataclass(frozen=True)
class _Way:
    """How steps are run by one process."""

    precision: Precision = "fp32"
    steps: Steps = "eager"
    batch_size: int = USUAL_BATCH


@dataclass(frozen=True)
class StepTimings:
    """How training steps are run, and how fast.

    batch_sizes, rates: for each phase, images per step of all processes together, and images per second of one process.
    batch_reason: why batches have that size. Reasons are empty where nothing was measured.
    """

    precision: Chosen[Precision]
    steps: Chosen[Steps]
    batch_sizes: tuple[int, ...]
    batch_reason: str
    rates: tuple[float, ...]


@dataclass(frozen=True)
class StepTimer:
    """Times forward and backward passes above the cuts of phases; weights are not changed.

    features: for each phase, what lies at its cut for some images.
    """

    classifier: Classifier
    phases: Sequence[Phase]
    features: Sequence[AtCut]
    _rates: dict[tuple[int, _Way], float] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where steps are run."""
        return self.classifier.device

    @property
    def is_cuda(self) -> bool:
        """Whether that is a CUDA device."""
        return self.device.type == "cuda"

    def position(self, index: int) -> int:
        """The position of the cut of phase `index`."""
        return self.classifier.backbone.cut(self.phases[index].cut).position

    def first_thawed(self) -> int | None:
        """The first phase that trains more than the head."""
        head = self.classifier.backbone.head_position
        return next((index for index in range(len(self.phases)) if self.position(index) < head), None)

    def with_size(self, way: _Way, batch_size: int) -> _Way:
        """The way with another batch size, which a CPU is not timed with beyond the usual one: it is no faster."""
        return replace(way, batch_size=max(1, batch_size if self.is_cuda else min(batch_size, USUAL_BATCH)))

    def rate(self, index: int, way: _Way, wanted: float = 0.0) -> float:
        """Images per second in phase `index`, timed once; 0 where a batch does not fit into memory.

        On a CPU, where the first pass is `_HOPELESS` times slower than the `wanted` rate, it is the last.
        """
        if (index, way) not in self._rates:
            try:
                self._rates[index, way] = self._rate(index, way, wanted)
            except torch.OutOfMemoryError:
                self._rates[index, way] = 0.0
            finally:
                self._freeze()
        return self._rates[index, way]

    def _rate(self, index: int, way: _Way, wanted: float) -> float:
        above, inputs = self._above(index, way)
        above.prepare([len(inputs.values)], lambda images: inputs)
        seconds = []
        for _ in range(_WARM_UP + (_ROUNDS_ON_CUDA if self.is_cuda else _ROUNDS)):
            started = time.perf_counter()
            loss = above(*inputs).square().mean()
            loss.backward()
            float(loss.detach())
            seconds.append(time.perf_counter() - started)
            if not self.is_cuda and way.batch_size / seconds[0] * _HOPELESS < wanted:
                break
        return len(inputs.values) / min(seconds[_WARM_UP:] or seconds)

    def distance(self, index: int, way: _Way) -> float:
        """Relative L2 distance of the gradients of phase `index` from those of eager steps."""
        try:
            found, expected = (self._gradients(index, each) for each in (way, replace(way, steps="eager")))
        finally:
            self._freeze()
        return distance_between(found[None], expected[None])

    def _gradients(self, index: int, way: _Way) -> Tensor:
        above, inputs = self._above(index, way)
        above.prepare([len(inputs.values)], lambda images: inputs)
        above(*inputs).square().mean().backward()
        gradients = [parameter.grad for parameter in self.classifier.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])
        self.classifier.zero_grad(set_to_none=True)
        return flat

    def _above(self, index: int, way: _Way) -> tuple[StepModel, AtCut]:
        """What lies above the cut of a phase, thawed, and a batch of inputs; in eval mode, where nothing is random."""
        phase, features, backbone = self.phases[index], self.features[index], self.classifier.backbone
        cut = backbone.cut(phase.cut)
        backbone.thaw(cut, "frozen")
        norms = frozen_norms(self.classifier, cut.position, features) if phase.batchnorm == "frozen" else {}
        copies = -(-way.batch_size // len(features.values))
        inputs = AtCut(*(torch.cat([part] * copies)[: way.batch_size] for part in features))
        return STEPS[way.steps](AboveCut(self.classifier, cut.position, way.precision, norms)), inputs

    def _freeze(self) -> None:
        self.classifier.zero_grad(set_to_none=True)
        self.classifier.backbone.thaw(self.classifier.backbone.cut("head"), "frozen")


def time_steps(recipe: Recipe, timer: StepTimer, head: AtCut, train_images: int, processes: int) -> StepTimings:
    """Choose how steps are run, as far as the recipe leaves it open, and time those of every phase.

    The highest phase that thaws anything decides: deeper ones may be skipped, and validation judges what they gain.

    Args:
        recipe: With its phases.
        timer: Has what lies at their cuts.
        head: What lies at the head for the same images, in fp32.
        train_images: Images of an epoch.
        processes: How many train together.
    """
    deciding = timer.first_thawed()
    steps = _steps(recipe, timer, deciding, processes)
    precision = _precision(recipe, timer, deciding, steps.value, head)
    way = _Way(precision.value, steps.value)
    batch = _batch_size(timer, deciding, way, train_images // processes)
    sizes = [
        phase.batch_size
        if phase.batch_size != "auto"
        else USUAL_BATCH
        if recipe.can_solve(phase)
        else max(USUAL_BATCH, batch.value * processes)
        for phase in timer.phases
    ]
    if recipe.steps == "auto" and processes == 1:
        steps = _compiled(timer, deciding, replace(way, batch_size=batch.value), train_images, steps)
        way = replace(way, steps=steps.value)
    rates = [timer.rate(index, timer.with_size(way, size // processes)) for index, size in enumerate(sizes)]
    return StepTimings(precision, steps, tuple(sizes), batch.reason, tuple(rates))


def _steps(recipe: Recipe, timer: StepTimer, deciding: int | None, processes: int) -> Chosen[Steps]:
    """Eager or recorded; what compiling gains is measured once the rest is known."""
    if recipe.steps != "auto":
        if recipe.steps == "cuda_graph" and not timer.is_cuda:
            raise RecipeError(f"steps cuda_graph: needs a CUDA device, and this run trains on {timer.device}; use auto")
        if recipe.steps != "eager" and processes > 1:
            raise RecipeError(f"steps {recipe.steps}: is for one process, and {processes} train together; use auto")
        return Chosen(recipe.steps, "as requested")
    if not timer.is_cuda:
        return Chosen("eager", "")
    if deciding is None:
        return Chosen("eager", "only the head trains")
    if processes > 1:
        return Chosen("eager", "gradients are averaged over several processes")
    way = _Way(steps="cuda_graph")
    try:
        distance = timer.distance(deciding, way)
        speedup = timer.rate(deciding, way) / timer.rate(deciding, _Way())
    # Networks that cannot be recorded fail in ways of their own; eager steps remain.
    except RuntimeError as error:
        return Chosen("eager", f"a CUDA graph fails here ({first_line(error)})")
    measured = f"a CUDA graph trains the thawed stages at {speedup:.2f}x the speed; gradients differ by {distance:.1%}"
    if speedup >= MIN_SPEEDUP and distance <= TOLERANCE:
        return Chosen("cuda_graph", f"{measured} (at most {TOLERANCE:.0%} allowed)")
    return Chosen("eager", f"{measured}; needs {MIN_SPEEDUP}x and at most {TOLERANCE:.0%}")


def _precision(recipe: Recipe, timer: StepTimer, deciding: int | None, steps: Steps, head: AtCut) -> Chosen[Precision]:
    """By the speed, and the outputs for equal features at the cut of the deciding phase."""
    if recipe.precision != "auto":
        return Chosen(recipe.precision, "as requested")
    if deciding is None:
        return Chosen("fp32", "only the head trains, which is fast in any precision")
    classifier, cut = timer.classifier, timer.position(deciding)
    with torch.no_grad(), training_autocast(classifier.device, "bf16"):
        rounded = classifier.backbone.advance(timer.features[deciding], cut, classifier.backbone.head_position)
    distance = distance_at_cut(rounded, head)
    fp32 = timer.rate(deciding, _Way("fp32", steps))
    speedup = timer.rate(deciding, _Way("bf16", steps), wanted=fp32) / fp32
    measured = f"bf16 trains the thawed stages at {speedup:.2f}x the speed of fp32; outputs differ by {distance:.1%}"
    if speedup >= MIN_SPEEDUP and distance <= TOLERANCE:
        return Chosen("bf16", f"{measured} (at most {TOLERANCE:.0%} allowed)")
    return Chosen("fp32", f"{measured}; needs {MIN_SPEEDUP}x and at most {TOLERANCE:.0%}")


def _batch_size(timer: StepTimer, deciding: int | None, way: _Way, train_images: int) -> Chosen[int]:
    """The smallest batch of one process that is nearly as fast as any; a CPU is busy with the usual one."""
    if deciding is None or not timer.is_cuda:
        return Chosen(USUAL_BATCH, "")
    sizes = [size for size in _BATCHES if size == USUAL_BATCH or size * _LEAST_STEPS <= train_images]
    rates = {size: timer.rate(deciding, replace(way, batch_size=size)) for size in sizes}
    enough = next(size for size, rate in rates.items() if rate >= _ENOUGH * max(rates.values()))
    measured = ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in rates.items())
    limit = f"; more would leave fewer than {_LEAST_STEPS} steps in an epoch" if len(sizes) < len(_BATCHES) else ""
    return Chosen(enough, f"images per second by batch size: {measured}{limit}")


def _compiled(
    timer: StepTimer, deciding: int | None, way: _Way, train_images: int, chosen: Chosen[Steps]
) -> Chosen[Steps]:
    """Compiled steps in place of the chosen ones, where training is long enough to find out."""
    if deciding is None or not timer.is_cuda:
        return chosen
    before = timer.rate(deciding, way)
    if timer.phases[deciding].epochs * train_images / before < _COMPILE_PAYS:
        return chosen
    compiled = replace(way, steps="compiled")
    distance = timer.distance(deciding, compiled)
    speedup = timer.rate(deciding, compiled) / before
    measured = f"{chosen.reason}; compiled {speedup:.2f}x the speed of that, gradients differ by {distance:.1%}"
    is_better = speedup >= MIN_SPEEDUP and distance <= TOLERANCE
    return Chosen("compiled" if is_better else chosen.value, measured)
