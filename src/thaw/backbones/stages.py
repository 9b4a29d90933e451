"""What lies at a cut, and the statistics of maps that let the head take all stages instead of the last one only.

A linear head on all stages is from Head2Toe (Evci et al. 2022, arXiv 2201.03529). One forward pass computes every
stage, so only the statistics cost something. Images per second of CPU time without and with them, MobileNetV2 at
224 px: PyTorch 29.6 and 27.8, OpenVINO in fp32 153 and 132, in bf16 339 and 250.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thaw.backbones.cuts import Block
from thaw.device import to_device

STATISTICS: Sequence[str] = ("mean", "deviation")
"""Statistics of each channel of a map over its positions: any of mean and (standard) deviation."""

MAX_STAGES = 10
"""Stages of a network beyond which only the last of each resolution counts: Inception has 17, Xception 14 to 20."""

_EPSILON = 1e-6
"""Added to a variance before the square root, whose gradient is infinite at 0: a constant map deviates by 0.001."""


class AtCut(NamedTuple):
    """What lies at a cut, for N images.

    values: the map (N, C, H, W), or at the head the pooled features (N, width) of the last stage. stages: the
    statistics (N, W) of the stages below, from the pixels up; W is 0 where the head takes the last stage only.
    """

    values: Tensor
    stages: Tensor

    @classmethod
    def above_nothing(cls, values: Tensor) -> AtCut:
        """Values with no stages below them."""
        # `len` would fix the number of images where a network is traced.
        return cls(values, values.new_zeros((values.shape[0], 0)))

    def to(self, device: torch.device) -> AtCut:
        """Both parts as float32 on a device, without waiting for what it is still doing."""
        return AtCut(*(to_device(part, device).float() for part in self))

    def for_head(self) -> Tensor:
        """What the head takes (N, W + width), of what lies at the head."""
        return torch.cat([self.stages, self.values], dim=1) if self.stages.shape[1] else self.values


def statistics_of(values: Tensor) -> Tensor:
    """The statistics (N, len(STATISTICS) * C) of a map (N, C, H, W), float32: all of one kind, then the next."""
    # In single precision also under autocast. `torch.var_mean` takes two to ten times as long on a CPU, and the mean of
    # squares minus the squared mean is useless in an engine that rounds to bf16.
    values = values.float()
    mean = values.mean(dim=(2, 3), keepdim=True)
    variance = (values - mean).square().mean(dim=(2, 3))
    computed = {"mean": mean.flatten(1), "deviation": (variance + _EPSILON).sqrt()}
    return torch.cat([computed[name] for name in STATISTICS], dim=1)


def taps_of(blocks: Sequence[Block]) -> dict[int, int]:
    """Where a stage below the last one ends in a map, and the map's channels: {position behind its last block: C}.

    Of more than `MAX_STAGES` stages only the last of each resolution.
    """
    ends = [position for position in range(1, len(blocks)) if blocks[position].stage != blocks[position - 1].stage]
    maps = {end: blocks[end - 1].shape for end in ends if len(blocks[end - 1].shape) == 3}
    if len(maps) > MAX_STAGES:
        last_of = {shape[1:]: end for end, shape in maps.items()}
        maps = {end: shape for end, shape in maps.items() if end in last_of.values()}
    return {end: shape[0] for end, shape in maps.items()}
