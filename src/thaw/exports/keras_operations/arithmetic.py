"""Arithmetic with numbers, constants of the network, and other values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from thaw.exports.keras_graph import Call, Constant, Value
from thaw.exports.keras_names import operation


def _add(call: Call, x: Any, y: Any, alpha: float = 1.0) -> Value:
    if isinstance(y, Value) and not isinstance(x, Value) and alpha == 1.0:
        x, y = y, x
    if isinstance(y, Value) and isinstance(x, Value):
        if alpha != 1.0:
            raise NotImplementedError("it has a factor")
        return _merged(call, "Add", x, y)
    if (number := _number(y)) is not None:
        return _rescaled(call, x, 1.0, alpha * number)
    vector = _vector(x, y) * alpha
    return _normalised(call, x, -vector, torch.ones_like(vector))


def _sub(call: Call, x: Any, y: Any, alpha: float = 1.0) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        if alpha != 1.0:
            raise NotImplementedError("it has a factor")
        return _merged(call, "Subtract", x, y)
    if isinstance(x, Value):
        if (number := _number(y)) is not None:
            return _rescaled(call, x, 1.0, -alpha * number)
        vector = _vector(x, y) * alpha
        if _is_divided(call.node):
            return replace(x, mean=vector)
        return _normalised(call, x, vector, torch.ones_like(vector))
    if (number := _number(x)) is not None:
        return _rescaled(call, y, -alpha, number)
    raise NotImplementedError("it subtracts from a constant")


def _rsub(call: Call, x: Value, y: Any, alpha: float = 1.0) -> Value:
    return _add(call, _rescaled(call, x, -alpha, 0.0), y)


def _mul(call: Call, x: Any, y: Any) -> Value:
    if not isinstance(x, Value):
        x, y = y, x
    if isinstance(y, Value):
        return _merged(call, "Multiply", x, y)
    if (number := _number(y)) is not None:
        return _rescaled(call, x, number, 0.0)
    return _scaled(call, x, _vector(x, y), y.is_parameter)


def _div(call: Call, x: Any, y: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise NotImplementedError("it rounds")
    if isinstance(y, Value):
        if not isinstance(x, Value):
            raise NotImplementedError("it divides a constant")
        x, y = call.with_same_axes(x, y)
        return Value(call.function("divide", x.tensor, y.tensor), x.axes)
    if x.mean is None and (number := _number(y)) is not None:
        return _rescaled(call, x, 1.0 / number, 0.0)
    scale = _vector(x, y)
    if (scale > 0).all():
        return _normalised(call, x, torch.zeros_like(scale) if x.mean is None else x.mean, scale)
    if x.mean is not None:
        x = _normalised(call, x, x.mean, torch.ones_like(scale))
    return _scaled(call, x, 1.0 / scale, False)


def _is_divided(node: fx.Node) -> bool:
    """Whether a result is used once, as the dividend of a tensor of the network."""
    users = list(node.users)
    if len(users) != 1 or operation(users[0]) != "div" or users[0].args[0] is not node:
        return False
    divisor = users[0].args[1]
    return isinstance(divisor, fx.Node) and divisor.op == "placeholder"


def _number(value: Any) -> float | None:
    """A Python number, or a constant of one element; `None` for a larger constant."""
    if isinstance(value, Constant):
        return float(value.tensor) if value.tensor.numel() == 1 and not value.is_parameter else None
    return float(value)


def _vector(x: Value, constant: Constant) -> Tensor:
    """A constant that differs along the last axis of the Keras tensor alone, as a vector."""
    tensor = constant.tensor.float()
    shape = (1,) * (len(x.axes) - tensor.ndim) + tuple(tensor.shape)
    channels = next(index for index, axis in enumerate(x.axes) if axis == len(x.axes) - 1)
    if len(shape) != len(x.axes) or any(size != 1 for index, size in enumerate(shape) if index != channels):
        raise NotImplementedError("it takes a constant that is no number and no vector of channels")
    return tensor.reshape(-1).expand(x.tensor.shape[-1])


def _rescaled(call: Call, x: Value, scale: float, offset: float) -> Value:
    is_nonnegative = x.is_nonnegative and scale >= 0 and offset >= 0
    return Value(call.layer("Rescaling", x.tensor, scale=scale, offset=offset), x.axes, is_nonnegative)


def _normalised(call: Call, x: Value, mean: Tensor, scale: Tensor) -> Value:
    """`(x - mean) / scale` along the last axis; both are weights of the layer that are not trained."""
    variance = scale.double().square().float()
    weights = [mean.float(), variance, torch.tensor(0, dtype=torch.int32)]
    tensor = call.layer("Normalization", x.tensor, weights, axis=-1)
    tensor._keras_history.operation.finalize_state()
    return Value(tensor, x.axes)


def _scaled(call: Call, x: Value, scale: Tensor, is_parameter: bool) -> Value:
    """`x * scale` along the last axis, with a weight of the layer."""
    letters = "abcdef"[: len(x.axes)]
    tensor = call.layer(
        "EinsumDense",
        x.tensor,
        [scale],
        suffix="scale",
        equation=f"{letters},{letters[-1]}->{letters}",
        output_shape=tuple(x.tensor.shape[1:]),
        trainable=is_parameter,
    )
    return Value(tensor, x.axes)


def _merged(call: Call, kind: str, x: Value, y: Value) -> Value:
    first, second = call.with_same_axes(x, y)
    is_nonnegative = kind != "Subtract" and x.is_nonnegative and y.is_nonnegative
    return Value(call.layer(kind, [first.tensor, second.tensor]), first.axes, is_nonnegative)


def _square(call: Call, x: Value) -> Value:
    return Value(call.layer("Multiply", [x.tensor, x.tensor]), x.axes, True)


def _pow(call: Call, x: Value, exponent: Any) -> Value:
    if exponent == 2:
        return _square(call, x)
    return Value(call.function("power", x.tensor, float(exponent)), x.axes)


def _neg(call: Call, x: Value) -> Value:
    return _rescaled(call, x, -1.0, 0.0)


def _by_ops(name: str, is_nonnegative: bool = False) -> Callable[..., Value]:
    """An operation on each element that only `keras.ops` has."""

    def build(call: Call, x: Value) -> Value:
        return Value(call.function(name, x.tensor), x.axes, is_nonnegative)

    return build


OPERATIONS: dict[str, Callable[..., Any]] = {
    "abs": _by_ops("absolute", is_nonnegative=True),
    "add": _add,
    "div": _div,
    "log": _by_ops("log"),
    "mul": _mul,
    "neg": _neg,
    "pow": _pow,
    "reciprocal": _by_ops("reciprocal"),
    "rsqrt": _by_ops("rsqrt", is_nonnegative=True),
    "rsub": _rsub,
    "sqrt": _by_ops("sqrt", is_nonnegative=True),
    "square": _square,
    "sub": _sub,
}
