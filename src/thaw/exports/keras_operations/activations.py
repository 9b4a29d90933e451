"""Activations, and what else changes each element on its own or normalises by a softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thaw.exports.keras_graph import Call, Value


def _activation(name: str, is_nonnegative: bool = False) -> Callable[..., Value]:
    def build(call: Call, x: Value) -> Value:
        return Value(call.layer("Activation", x.tensor, activation=name), x.axes, is_nonnegative)

    return build


def _relu(call: Call, x: Value) -> Value:
    return Value(call.layer("ReLU", x.tensor), x.axes, True)


def _clamp(call: Call, x: Value, low: float | None = None, high: float | None = None) -> Value:
    if low == 0.0:
        return Value(call.layer("ReLU", x.tensor, max_value=high), x.axes, True)
    tensor = x.tensor
    if low is not None:
        tensor = call.function("maximum", tensor, float(low), suffix="min")
    if high is not None:
        tensor = call.function("minimum", tensor, float(high), suffix="max")
    return Value(tensor, x.axes, low is not None and low >= 0)


def _hardtanh(call: Call, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    return _clamp(call, x, low, high)


def _leaky_relu(call: Call, x: Value, slope: float = 0.01) -> Value:
    return Value(call.layer("LeakyReLU", x.tensor, negative_slope=slope), x.axes)


def _elu(call: Call, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    if scale != 1.0 or input_scale != 1.0:
        raise NotImplementedError("it has a scale")
    return Value(call.layer("ELU", x.tensor, alpha=alpha), x.axes)


def _gelu(call: Call, x: Value, approximate: str = "none") -> Value:
    if approximate == "none":
        return _activation("gelu")(call, x)
    return Value(call.function("gelu", x.tensor, approximate=True), x.axes)


def _softmax(call: Call, x: Value, dim: int, dtype: Any = None) -> Value:
    return Value(call.layer("Softmax", x.tensor, axis=x.axes[x.dim(dim)]), x.axes, True)


def _dropout(call: Call, x: Value, rate: float, training: bool) -> Value:
    if training:
        raise NotImplementedError("it drops values at random")
    return Value(call.layer("Dropout", x.tensor, rate=rate), x.axes, x.is_nonnegative) if rate else x


OPERATIONS: dict[str, Callable[..., Any]] = {
    "_softmax": _softmax,
    "clamp": _clamp,
    "clamp_max": lambda call, x, high: _clamp(call, x, None, high),
    "clamp_min": _clamp,
    "dropout": _dropout,
    "elu": _elu,
    "exp": _activation("exponential", is_nonnegative=True),
    "gelu": _gelu,
    "hardsigmoid": _activation("hard_sigmoid", is_nonnegative=True),
    "hardswish": _activation("hard_silu"),
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "mish": _activation("mish"),
    "relu": _relu,
    "relu6": lambda call, x: _clamp(call, x, 0.0, 6.0),
    "sigmoid": _activation("sigmoid", is_nonnegative=True),
    "silu": _activation("silu"),
    "softmax": _softmax,
    "softplus": _activation("softplus", is_nonnegative=True),
    "tanh": _activation("tanh"),
}
