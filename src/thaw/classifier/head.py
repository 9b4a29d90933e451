"""The new head: from features to logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Dropout, linear and ReLU for each hidden layer, then dropout and a linear layer.

    The initial weights depend on `seed` alone. The last layer starts at zero: the first prediction is the same for
    every class, and the first gradient of a thawed backbone is zero.

    Args:
        width: Number of features, `Backbone.feature_width`.
        outputs: Number of classes, or 1 for a binary task.
        hidden: Units of each hidden layer.
        dropout: Probability in 0..1 of dropping an input of a layer.
        seed: Random seed for the initial weights.
        standardised: Subtract a fixed mean from each feature and divide by a fixed scale, which `standardise` sets. For
            features of all stages, whose scales are very different.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, width: int, outputs: int, hidden: Sequence[int], dropout: float, seed: int, standardised: bool = False
    ) -> None:
        super().__init__()
        self.is_standardised = standardised
        if standardised:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("scale", torch.ones(width))
        self.hidden = tuple(hidden)
        self.dropout = dropout
        sizes = [width, *hidden]
        with torch.random.fork_rng(devices=[]):
            # `torch.manual_seed` would seed the GPUs too, whose state `fork_rng(devices=[])` does not restore.
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
        """Whether the head is a single linear layer, as the classifier of a timm network is."""
        return not self.hidden

    def start_from(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Start from linear layers (weight (out, in), bias (out,)); two outputs become one for a binary head."""
        own = [module for module in self.layers if isinstance(module, nn.Linear)]
        with torch.no_grad():
            for layer, (weight, bias) in zip(own, layers, strict=True):
                if len(bias) == 2 and layer.out_features == 1:
                    weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)

    def apply_temperature(self, temperature: float) -> None:
        """Divide all logits by a temperature from now on, by scaling the last layer."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.div_(temperature)
            last.bias.div_(temperature)

    def shift_logits(self, shift: Tensor) -> None:
        """Add a constant (outputs,) to the logits from now on, in the bias of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.add_(shift.to(last.bias))

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Set what is subtracted from the features, and what they are divided by, (width,) each."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def standardised(self, features: Tensor) -> Tensor:
        """What the first layer takes: features (N, width), standardised if the head does that."""
        return (features - self.mean) / self.scale if self.is_standardised else features

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, outputs) of features (N, width)."""
        return self.layers(self.standardised(features))
