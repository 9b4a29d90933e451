"""The BatchNorm layers of a network, with the running statistics that pre-training has left in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.backbones.cuts import Block


@dataclass(frozen=True)
class BatchNormLayer:
    """One BatchNorm: its stage, the module to watch, and its running statistics, (C,) float64 each.

    eps: what it adds to a variance before the square root.
    """

    stage: str
    module: nn.Module
    mean: Tensor
    variance: Tensor
    eps: float

    @property
    def is_untrained(self) -> bool:
        """Whether its statistics are those of a new network."""
        return bool((self.mean == 0).all() and (self.variance == 1).all())


def batchnorm_layers(network: nn.Module, blocks: Sequence[Block]) -> tuple[BatchNormLayer, ...]:
    """Every BatchNorm of a network that keeps statistics, in the order of its blocks."""
    return tuple(
        BatchNormLayer(
            stage=block.stage,
            module=module,
            mean=module.running_mean.cpu().double(),
            variance=module.running_var.cpu().double(),
            eps=module.eps,
        )
        for block in blocks
        for name in block.modules
        for module in network.get_submodule(name).modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
    )


def is_frozen(layer: _BatchNorm) -> bool:
    """Whether a layer has parameters and none of them learns, as within a block that `layers:N` divides."""
    parameters = list(layer.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
