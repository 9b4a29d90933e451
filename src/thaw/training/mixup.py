"""Mixup of the features at the cut (Zhang et al. 2018; Verma et al. 2019, Manifold Mixup)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.stages import AtCut
from thaw.training.loss import Loss


@dataclass(frozen=True)
class Blend:
    """How one batch is blended with itself: image i is `fraction` of itself and the rest of image `partner[i]`.

    fraction: 0..1. partner: (N,) int64, a permutation.
    """

    fraction: float
    partner: Tensor

    def inputs(self, at: AtCut) -> AtCut:
        """The blended inputs of the batch."""
        return AtCut(*(torch.lerp(part[self.partner], part, self.fraction) for part in at))

    def loss(self, loss: Loss) -> Loss:
        """The loss of blended inputs: that of both targets, weighted as the inputs are."""

        def blended(logits: Tensor, targets: Tensor) -> Tensor:
            return self.fraction * loss(logits, targets) + (1.0 - self.fraction) * loss(logits, targets[self.partner])

        return blended


def draw_blend(amount: float, size: int, seed: int, device: torch.device) -> Blend:
    """Draw the blend of a batch of `size` images: one fraction from Beta(`amount`, `amount`), and the partners."""
    draws = np.random.default_rng(seed)
    fraction = float(draws.beta(amount, amount))
    return Blend(fraction, torch.from_numpy(draws.permutation(size)).to(device))
