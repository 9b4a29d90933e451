"""The student: a randomly initialised network of the teacher's architecture, and the errors of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretraining.configuration import Part
from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.timm_backbone import build, rebuild
from thaw.recipe import PreprocessingSettings

# An almost constant channel would have an unbounded weight if its error were divided by its own deviation.
_SMALLEST_DEVIATION = 0.25


def load_teacher(name: str, weights: Path, size: int) -> Backbone:
    """The teacher, frozen, for crops of `size` pixels."""
    teacher = build(name, str(weights), PreprocessingSettings(image_size=size))
    return teacher.to(memory_format=torch.channels_last)


def new_student(teacher: Backbone) -> Backbone:
    """A network of the teacher's architecture with random weights."""
    return rebuild(teacher.facts, "avg").to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Range:
    """The blocks `start` up to, not including, `stop`."""

    start: int
    stop: int

    @classmethod
    def of(cls, part: Part, backbone: Backbone) -> Range:
        """The blocks of a part."""
        stop = backbone.cut(part.stop).position if part.stop else len(backbone.blocks)
        return cls(backbone.cut(part.start).position, stop)

    def values(self, backbone: Backbone, stored: Tensor) -> Tensor:
        """A stored batch as input of the lowest block: pixels (N, S, S, 3) uint8 are normalised."""
        if self.start == 0:
            facts = backbone.facts
            value: Tensor = Normalise(facts.mean, facts.std)(stored)
        else:
            value = stored.float()
        return value.contiguous(memory_format=torch.channels_last)

    def modules(self, backbone: Backbone) -> nn.ModuleList:
        """The modules of the blocks."""
        blocks = backbone.blocks[self.start : self.stop]
        return nn.ModuleList([backbone.network.get_submodule(name) for block in blocks for name in block.modules])

    def outputs(self, backbone: Backbone, value: Tensor, forced: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Output of each block for `value`; with `forced`, block n + 1 gets `forced[n]`, not the output of block n."""
        given = []
        for number in range(self.stop - self.start):
            value = backbone.run(value, self.start + number, self.start + number + 1)
            given.append(value)
            value = value if forced is None else forced[number]
        return given


class Errors:
    """Mean squared error of each block, in units of the variance of each channel of the teacher's block."""

    def __init__(self, reference: Sequence[Tensor]) -> None:
        self._deviations = []
        for value in reference:
            deviation = value.std(dim=_all_but_channels(value))
            self._deviations.append(deviation.clamp_min(_SMALLEST_DEVIATION * float(deviation.mean())))

    def __call__(self, given: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[Tensor]:
        """One error per block: 0 for the same output, about 1 for predicting only the mean."""
        return [
            ((one - other).square().mean(dim=_all_but_channels(one)) / deviation.square()).mean()
            for one, other, deviation in zip(given, wanted, self._deviations, strict=True)
        ]


@torch.no_grad()
def initialise_statistics(student: Backbone, blocks: Range, value: Tensor, wanted: Sequence[Tensor]) -> None:
    """Initialise each block with the mean and standard deviation of what the teacher's block adds to its input.

    Otherwise channels of small magnitude would need a thousand steps to shrink before they could learn.
    """
    below = value
    for block, after in zip(student.blocks[blocks.start : blocks.stop], wanted, strict=True):
        norms = [
            module
            for name in block.modules
            for module in student.network.get_submodule(name).modules()
            if isinstance(module, _BatchNorm)
        ]
        added = after - below if after.shape == below.shape else after
        if norms and norms[-1].num_features == added.shape[1]:
            norms[-1].bias.copy_(added.mean(dim=_all_but_channels(added)))
            norms[-1].weight.copy_(added.std(dim=_all_but_channels(added)))
        below = after


def _all_but_channels(value: Tensor) -> list[int]:
    return [0, *range(2, value.ndim)]
