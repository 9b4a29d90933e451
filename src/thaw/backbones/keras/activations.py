"""Activation functions of Keras by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from thaw.errors import BackboneError

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
}
"""What Keras 3 computes under each name."""


def activation(value: Any) -> nn.Module:
    """The module of an activation as the configuration of a layer gives it; raises `BackboneError`."""
    name = "linear" if value is None else value
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise BackboneError(f"activation {value!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
