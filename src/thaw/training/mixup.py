"""Mixup above the cut: a batch blended with itself in another order, targets alike (Zhang et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thaw.training.loss import Loss


@dataclass(frozen=True)
class Blend:
    """What one batch is mixed with: `fraction` in 0..1 of each image, and the rest of the image at `partner` (N,)."""

    fraction: float
    partner: Tensor

    def inputs(self, values: Tensor) -> Tensor:
        """What lies at the cut (N, ...) float, blended."""
        return torch.lerp(values[self.partner], values, self.fraction)

    def loss(self, loss: Loss) -> Loss:
        """The loss by the targets of both images, in the shares of the images."""

        def blended(logits: Tensor, targets: Tensor) -> Tensor:
            return self.fraction * loss(logits, targets) + (1.0 - self.fraction) * loss(logits, targets[self.partner])

        return blended


def draw_blend(amount: float, size: int, seed: int, device: torch.device) -> Blend:
    """The blend of one batch of `size` images: its share from Beta(`amount`, `amount`), all of it from `seed`."""
    draws = np.random.default_rng(seed)
    fraction = float(draws.beta(amount, amount))
    return Blend(fraction, torch.from_numpy(draws.permutation(size)).to(device))
