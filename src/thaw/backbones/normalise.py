"""From uint8 pixels to what a pre-trained network expects: the one place where pixels are normalised."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """Turn pixels (N, S, S, 3) uint8 0..255 into (N, 3, S, S) float32, `(x / 255 - mean) / std` per channel.

    The result is a channels-last view of the same layout in memory, which convolutions like best.
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
