"""The frozen part executed by PyTorch, eagerly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise

Precision = Literal["fp32", "bf16"]


class TorchRunner:
    """Runs blocks from the pixels up to each asked position, in fp32 or under bf16 autocast, channels last."""

    def __init__(self, backbone: Backbone, device: torch.device, precision: Precision) -> None:
        self.name = f"PyTorch {torch.__version__.split('+')[0]} {precision} on {device.type}"
        self._backbone = backbone
        self._normalise = Normalise(backbone.facts.mean, backbone.facts.std).to(device)
        self._device = device
        self._precision = precision

    def run(self, pixels: Tensor, positions: Sequence[int]) -> list[Tensor]:
        """Outputs at `positions` (ascending) for pixels (N, S, S, 3) uint8: float32 on the device, no gradients."""
        with torch.no_grad(), autocast(self._device, self._precision):
            value, start, outputs = self._normalise(pixels.to(self._device)), 0, []
            for position in positions:
                value, start = self._backbone.run(value, start, position), position
                outputs.append(value.float())
            return outputs


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast region that a precision means on a device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
