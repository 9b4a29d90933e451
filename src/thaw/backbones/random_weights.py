"""Random weights in place of pre-trained ones: to train from scratch, and to see what depends on the learned ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def randomise(network: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a random value, and every norm the statistics of a new network.

    Matrices and filters are drawn after He et al. 2015; gains are 1 and biases 0.
    """
    with torch.no_grad():
        for module in network.modules():
            for name, value in module.named_parameters(recurse=False):
                if value.ndim > 1:
                    deviation = (2 / value[0].numel()) ** 0.5
                    value.copy_(torch.randn(value.shape, generator=generator) * deviation)
                else:
                    value.fill_(0.0 if name == "bias" else 1.0)
            if isinstance(module, _NormBase):
                module.reset_running_stats()
