"""Normalisation of uint8 pixels for a pre-trained network; pixels are normalised nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """Pixels (N, S, S, 3) uint8 0..255 to (N, 3, S, S) float32, `(x / 255 - mean) / std` per channel.

    The result is channels_last in memory, the fastest layout for convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32) * 255.0, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise one batch."""
        return ((pixels.to(torch.float32) - self.mean) / self.std).permute(0, 3, 1, 2)
