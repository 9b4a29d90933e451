"""Muon for dense matrices and convolutions, AdamW for everything else.

A distillation on a small machine sees only a few hundred thousand crops, where better update directions pay off: Muon
orthogonalises the momentum of each weight matrix before the step (Jordan 2024), scaled to the size of AdamW's steps
(Liu et al. 2025), so that both use the same learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_SCALE = 0.2
# Coefficients of the quintic iteration that drives singular values towards 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5
_LARGEST = 512
"""Orthogonalising a matrix with both sides above this would take longer than the step itself."""


class Muon(torch.optim.Optimizer):
    """Muon for weights (rows, ...), each flattened to a matrix with `rows` rows."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            directions: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                momentum = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                direction = weight.grad.lerp(momentum, group["momentum"]).flatten(1)
                directions[tuple(direction.shape)].append((weight, direction))
            for shape, members in directions.items():
                updates = orthogonal(torch.stack([direction for _, direction in members]))
                for (weight, _), update in zip(members, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * _SCALE * max(shape) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (K, M, N) with the singular vectors of the given ones and singular values near 1, approximately."""
    tall = matrices.shape[1] > matrices.shape[2]
    value = matrices.mT if tall else matrices
    value = (value / value.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)).bfloat16()
    for _ in range(_ROUNDS):
        square = value @ value.mT
        value = _A * value + (_B * square + _C * square @ square) @ value
    return (value.mT if tall else value).float()


def optimizers_for(module: nn.Module, lr: float, weight_decay: float, muon: bool) -> list[torch.optim.Optimizer]:
    """The optimizers for all parameters of a module."""
    dense = [value for value in module.parameters() if muon and _is_dense(value)]
    ids = {id(value) for value in dense}
    others = [value for value in module.parameters() if id(value) not in ids]
    groups = [
        {"params": [value for value in others if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for value in others if value.ndim <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), foreach=True)
    return [adam, Muon(dense, lr, weight_decay)] if dense else [adam]


def _is_dense(weight: Tensor) -> bool:
    """Whether a weight is a matrix or a convolution over many channels, of a size for which Muon pays off."""
    if weight.ndim < 2:
        return False
    rows, columns = weight.shape[0], weight[0].numel()
    return min(rows, columns) >= 16 and min(rows, columns) <= _LARGEST and (weight.ndim == 2 or weight.shape[1] > 8)
