"""The frozen part run by PyTorch, eagerly or compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.stages import AtCut
from thaw.device import compute_fp32_exactly

Precision = Literal["fp32", "bf16"]

_LEAST_COMPILED = 32
"""Images for which a network is compiled at least."""


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
    """Runs the frozen blocks in fp32 or with bf16 autocast.

    Compiled, or on an accelerator, a batch is padded to a power of two with black images, whose outputs are dropped: a
    network is compiled again for every other size, and cuDNN takes up to 50 ms to prepare a convolution for one.
    """

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
        self._pads = compiled or device.type != "cpu"
        self._least = _LEAST_COMPILED if compiled else 1

    def run(self, pixels: Tensor) -> list[AtCut]:
        """What lies at each position, float32 on the device without gradients, for pixels (N, S, S, 3) uint8."""
        images = len(pixels)
        size = max(self._least, 1 << (images - 1).bit_length()) if self._pads else images
        if size > images:
            pixels = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, size - images))
        with torch.no_grad(), autocast(self._device, self._precision):
            outputs = [output[:images].float() for output in self._forward(pixels.to(self._device))]
        return self._frozen.at_cuts(outputs)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision on a device; fp32 is exact in it and ever after."""
    compute_fp32_exactly()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
