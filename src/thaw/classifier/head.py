"""The new head: from pooled features to logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Features (N, width) float to logits (N, outputs).

    Dropout, linear and ReLU for each hidden layer, then dropout and linear. `outputs` is the number of
    classes, or 1 for a binary task. Weights depend on `seed` alone. The last layer starts at zero, so the
    first prediction is the same for every class and the first gradients are those of the head alone.
    """

    def __init__(self, width: int, outputs: int, hidden: Sequence[int], dropout: float, seed: int) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        self.dropout = dropout
        sizes = [width, *hidden]
        with torch.random.fork_rng(devices=[]):
            # `torch.manual_seed` would seed the GPUs too, and `fork_rng` of the CPU does not give those back.
            torch.default_generator.manual_seed(seed)
            layers: list[nn.Module] = []
            for inputs, units in pairwise(sizes):
                layers += [nn.Dropout(dropout), nn.Linear(inputs, units), nn.ReLU()]
            last = nn.Linear(sizes[-1], outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), last)

    @property
    def is_linear(self) -> bool:
        """Whether the head is one linear layer, as a network of timm has it."""
        return not self.hidden

    def apply_temperature(self, temperature: float) -> None:
        """Divide all logits by a temperature from now on, by scaling the last layer."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.div_(temperature)
            last.bias.div_(temperature)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, outputs) of features (N, width)."""
        return self.layers(features)
