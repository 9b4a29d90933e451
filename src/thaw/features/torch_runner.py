"""The frozen part run by PyTorch, eagerly or compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.stages import AtCut
from thaw.device import compute_fp32_exactly

Precision = Literal["fp32", "bf16"]


class Frozen(nn.Module):
    """The blocks from the pixels to the last of some positions, as one module."""

    def __init__(self, backbone: Backbone, positions: Sequence[int]) -> None:
        super().__init__()
        self.normalise = Normalise(backbone.facts.mean, backbone.facts.std)
        self.backbone = backbone
        self.positions = tuple(positions)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The values at each position, and the statistics of all stages below the highest one if the head takes any.

        For pixels (N, S, S, 3) uint8 0..255. Not an `AtCut` for each position: their statistics are parts of one
        another, and engines have no outputs of width 0.
        """
        at, start, outputs = AtCut.above_nothing(self.normalise(pixels)), 0, []
        for position in self.positions:
            at, start = self.backbone.advance(at, start, position), position
            outputs.append(at.values)
        return (*outputs, at.stages) if self.backbone.stage_width(start) else tuple(outputs)

    def at_cuts(self, outputs: Sequence[Tensor]) -> list[AtCut]:
        """What lies at each position, of what `forward` gives."""
        widths = [self.backbone.stage_width(position) for position in self.positions]
        if not widths[-1]:
            return [AtCut.above_nothing(values) for values in outputs]
        *values, stages = outputs
        return [AtCut(part, stages[:, :width]) for part, width in zip(values, widths, strict=True)]


class TorchRunner:
    """Runs the frozen blocks in fp32 or with bf16 autocast."""

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        precision: Precision,
        positions: Sequence[int],
        compiled: bool = False,
    ) -> None:
        self.positions = tuple(positions)
        self._frozen = Frozen(backbone, positions)
        self._frozen.normalise.to(device)
        self._forward = torch.compile(self._frozen, dynamic=False) if compiled else self._frozen
        self._device = device
        self._precision = precision

    def run(self, pixels: Tensor) -> list[AtCut]:
        """What lies at each position, float32 on the device without gradients, for pixels (N, S, S, 3) uint8."""
        with torch.no_grad(), autocast(self._device, self._precision):
            return self._frozen.at_cuts([output.float() for output in self._forward(pixels.to(self._device))])


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision on a device; fp32 is exact in it and ever after."""
    compute_fp32_exactly()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
