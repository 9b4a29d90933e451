"""Times training steps of the phases on real features, in every mode that they can be run in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.device import ran_out_of_memory
from thaw.features.probe import distance_between
from thaw.features.torch_runner import Precision
from thaw.recipe import USUAL_BATCH, MemoryFormat, Phase, Steps
from thaw.training.folding import frozen_norms
from thaw.training.steps import STEPS, AboveCut, StepModel

_WARM_UP, _ROUNDS, _ROUNDS_ON_CUDA = 1, 2, 10
_HOPELESS = 4.0
"""On a CPU a first pass takes up to twice as long as later ones; on a GPU up to a thousand times."""


@dataclass(frozen=True)
class StepMode:
    """How steps are run by one process."""

    precision: Precision
    steps: Steps
    memory_format: MemoryFormat
    batch_size: int = USUAL_BATCH


@dataclass(frozen=True)
class _Timing:
    """What `StepTimer.rate` and `StepTimer.distance` give."""

    rate: float
    distance: float = 0.0


@dataclass(frozen=True)
class StepTimer:
    """Times forward and backward passes above the cuts of phases; weights are not changed.

    features: for each phase, what lies at its cut for some images.
    """

    classifier: Classifier
    phases: Sequence[Phase]
    features: Sequence[AtCut]
    _timings: dict[tuple[int, StepMode], _Timing] = field(default_factory=dict)

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

    def with_size(self, mode: StepMode, batch_size: int) -> StepMode:
        """The mode with another batch size, which a CPU is not timed with beyond the usual one: it is no faster."""
        return replace(mode, batch_size=max(1, batch_size if self.is_cuda else min(batch_size, USUAL_BATCH)))

    def rate(self, index: int, mode: StepMode) -> float:
        """Images per second in phase `index`; 0 where a batch does not fit into memory."""
        return self._timing(index, mode).rate

    def speedup(self, index: int, mode: StepMode, base: StepMode) -> float:
        """How many times as fast as another mode one is in phase `index`."""
        base_rate = self.rate(index, base)
        return self._timing(index, mode, wanted=base_rate).rate / max(base_rate, 1e-9)

    def distance(self, index: int, mode: StepMode) -> float:
        """Relative L2 distance of the gradients of phase `index` from those of eager steps."""
        return self._timing(index, mode).distance

    def _timing(self, index: int, mode: StepMode, wanted: float = 0.0) -> _Timing:
        """Made once; on a CPU, a first pass that is `_HOPELESS` times slower than the `wanted` rate is the last."""
        if (index, mode) not in self._timings:
            try:
                self._timings[index, mode] = self._time(index, mode, wanted)
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                self._timings[index, mode] = _Timing(rate=0.0)
            finally:
                self._freeze()
        return self._timings[index, mode]

    def _time(self, index: int, mode: StepMode, wanted: float) -> _Timing:
        eager, inputs = self._above(index, mode)
        steps = STEPS[mode.steps](eager)
        # Capturing and compiling take long, so that what they give is timed and compared in one go.
        steps.prepare([len(inputs.values)], lambda images: inputs)
        distance = 0.0
        if mode.steps != "eager":
            distance = distance_between(*(self._gradients(each, inputs)[None] for each in (steps, eager)))
        seconds = []
        for _ in range(_WARM_UP + (_ROUNDS_ON_CUDA if self.is_cuda else _ROUNDS)):
            started = time.perf_counter()
            loss = steps(*inputs).square().mean()
            loss.backward()
            float(loss.detach())
            seconds.append(time.perf_counter() - started)
            if not self.is_cuda and mode.batch_size / seconds[0] * _HOPELESS < wanted:
                break
        return _Timing(len(inputs.values) / min(seconds[_WARM_UP:] or seconds), distance)

    def _gradients(self, steps: StepModel, inputs: AtCut) -> Tensor:
        steps(*inputs).square().mean().backward()
        gradients = [parameter.grad for parameter in self.classifier.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])
        self.classifier.zero_grad(set_to_none=True)
        return flat

    def _above(self, index: int, mode: StepMode) -> tuple[AboveCut, AtCut]:
        """What lies above the cut of a phase, thawed, and a batch of inputs; in eval mode, where nothing is random."""
        phase, features, backbone = self.phases[index], self.features[index], self.classifier.backbone
        cut = backbone.cut(phase.cut)
        backbone.use_memory_format(mode.memory_format)
        backbone.thaw(cut, "frozen")
        norms = frozen_norms(self.classifier, cut.position, features) if phase.batchnorm == "frozen" else {}
        copies = -(-mode.batch_size // len(features.values))
        inputs = AtCut(*(torch.cat([part] * copies)[: mode.batch_size] for part in features))
        return AboveCut(self.classifier, cut.position, mode.precision, norms), inputs

    def _freeze(self) -> None:
        self.classifier.zero_grad(set_to_none=True)
        self.classifier.backbone.thaw(self.classifier.backbone.cut("head"), "frozen")
