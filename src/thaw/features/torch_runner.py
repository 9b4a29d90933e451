"""The frozen part run by PyTorch, eagerly or compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
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
        """Features at each position for pixels (N, S, S, 3) uint8 0..255."""
        value, start, outputs = self.normalise(pixels), 0, []
        for position in self.positions:
            value, start = self.backbone.run(value, start, position), position
            outputs.append(value)
        return tuple(outputs)


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
        frozen = Frozen(backbone, positions)
        frozen.normalise.to(device)
        self._frozen = torch.compile(frozen, dynamic=False) if compiled else frozen
        self._device = device
        self._precision = precision

    def run(self, pixels: Tensor) -> list[Tensor]:
        """Features at each position, float32 on the device without gradients, for pixels (N, S, S, 3) uint8."""
        with torch.no_grad(), autocast(self._device, self._precision):
            return [output.float() for output in self._frozen(pixels.to(self._device))]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision on a device; fp32 is exact in it and ever after."""
    compute_fp32_exactly()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
