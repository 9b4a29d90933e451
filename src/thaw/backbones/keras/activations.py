"""Activation functions of Keras by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from thaw.backbones.keras.graph import Graph
from thaw.errors import BackboneError


class HardSigmoidOfKeras2(nn.Module):
    """`clip(x / 5 + 0.5, 0, 1)`; Keras 3 and PyTorch divide by 6."""

    def forward(self, value: Tensor) -> Tensor:
        """Compute it elementwise."""
        return (0.2 * value + 0.5).clamp(0.0, 1.0)


_IN_KERAS_2 = {"hard_sigmoid": "hard_sigmoid of Keras 2"}
"""Names of what Keras 2 computes otherwise than Keras 3 under the same name."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "mish": nn.Mish,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "softmax": lambda: nn.Softmax(dim=1),
    _IN_KERAS_2["hard_sigmoid"]: HardSigmoidOfKeras2,
}
"""What Keras 3 computes under each name, and what Keras 2 computed under some of them."""


def activation(value: Any) -> nn.Module:
    """The module of an activation as the configuration of a layer gives it; raises `BackboneError`."""
    name = "linear" if value is None else value
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise BackboneError(f"activation {value!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def as_in_keras_2(graph: Graph) -> Graph:
    """The graph of a model of Keras 2, with names of its own for activations that Keras 3 computes otherwise."""
    nodes = []
    for node in graph.nodes:
        name = node.config.get("activation")
        if isinstance(name, str) and name in _IN_KERAS_2:
            node = replace(node, config={**node.config, "activation": _IN_KERAS_2[name]})
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))
