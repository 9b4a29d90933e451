"""Pooling, padding and cropping of maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from thaw.exports.keras_graph import CHANNELS_LAST, MAPS_LAST, Call, Ints, Value, pair

_LOWEST = float(torch.finfo(torch.float32).min)
"""Pads a maximum instead of minus infinity, which JSON cannot express."""


def _pool_pads(
    call: Call, x: Value, size: tuple[int, int], strides: tuple[int, int], padding: tuple[int, int]
) -> list[tuple[int, int]]:
    """What is added before and after each axis, with what is missing for the last window in `ceil_mode`."""
    pads = []
    for axis, (window, step, side) in enumerate(zip(size, strides, padding, strict=True), start=2):
        length, windows = x.shape[axis], call.shape[axis]
        assert length is not None and windows is not None
        missing = (windows - 1) * step + window - (length + 2 * side)
        pads.append((side, side + max(0, missing)))
    return pads


def _is_same(size: tuple[int, int], strides: tuple[int, int], pads: Sequence[tuple[int, int]]) -> bool:
    """Whether Keras pads as much on its own, and computes without the padding."""
    return strides == (1, 1) and all(
        window % 2 == 1 and pad == (window // 2, window // 2) for window, pad in zip(size, pads, strict=True)
    )


def _pooled(call: Call, kind: str, tensor: Any, size: tuple[int, int], strides: tuple[int, int], is_same: bool) -> Any:
    padding = "same" if is_same else "valid"
    return call.layer(f"{kind}Pooling2D", tensor, pool_size=size, strides=strides, padding=padding, **CHANNELS_LAST)


def _max_pool2d(
    call: Call, x: Value, size: Ints, stride: Ints = (), padding: Ints = 0, dilation: Ints = 1, ceil_mode: bool = False
) -> Value:
    if pair(dilation) != (1, 1):
        raise NotImplementedError("it is dilated")
    x, size, strides = call.maps(x), pair(size), pair(stride or size)
    pads = _pool_pads(call, x, size, strides, pair(padding))
    is_same = _is_same(size, strides, pads)
    inputs = x.tensor
    if x.is_nonnegative and not is_same:
        inputs = call.zero_padded(inputs, pads)
    elif any(map(any, pads)) and not is_same:
        inputs = call.function("pad", inputs, ((0, 0), *pads, (0, 0)), suffix="pad", constant_values=_LOWEST)
    return Value(_pooled(call, "Max", inputs, size, strides, is_same), MAPS_LAST, x.is_nonnegative)


def _avg_pool2d(
    call: Call,
    x: Value,
    size: Ints,
    stride: Ints = (),
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    x, size, strides = call.maps(x), pair(size), pair(stride or size)
    pads = _pool_pads(call, x, size, strides, pair(padding))
    if divisor_override is not None or any(before != after for before, after in pads):
        raise NotImplementedError("it divides by other numbers than the size of the window")
    is_same = not count_include_pad and _is_same(size, strides, pads)
    if any(map(any, pads)) and not count_include_pad and not is_same:
        raise NotImplementedError("it leaves out the padding, with a stride")
    inputs = x.tensor if is_same else call.zero_padded(x.tensor, pads)
    return Value(_pooled(call, "Average", inputs, size, strides, is_same), MAPS_LAST, x.is_nonnegative)


def _adaptive_avg_pool2d(call: Call, x: Value, size: Ints) -> Value:
    return _adaptive(call, x, size, "Average")


def _adaptive_max_pool2d(call: Call, x: Value, size: Ints) -> tuple[Value, None]:
    return _adaptive(call, x, size, "Max"), None


def _adaptive(call: Call, x: Value, size: Ints, kind: str) -> Value:
    x = call.maps(x)
    height, width = x.shape[2:]
    assert height is not None and width is not None
    rows, columns = pair(size)
    if (rows, columns) == (1, 1):
        tensor = call.layer(f"Global{kind}Pooling2D", x.tensor, keepdims=True, **CHANNELS_LAST)
    elif height % rows or width % columns:
        raise NotImplementedError("its windows have different sizes")
    else:
        window = (height // rows, width // columns)
        tensor = call.layer(f"{kind}Pooling2D", x.tensor, pool_size=window, strides=window, **CHANNELS_LAST)
    return Value(tensor, MAPS_LAST, x.is_nonnegative)


def _pad(call: Call, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    if mode != "constant":
        raise NotImplementedError(f"it pads with {mode}")
    # PyTorch lists the last axis first.
    pads = {len(x.axes) - 1 - index: tuple(pad[2 * index : 2 * index + 2]) for index in range(len(pad) // 2)}
    is_spatial = len(x.axes) == 4 and all(axis >= 2 or sides == (0, 0) for axis, sides in pads.items())
    if is_spatial and not value and min(pad) >= 0:
        x = call.maps(x)
        tensor = call.zero_padded(x.tensor, [pair(pads.get(axis, 0)) for axis in (2, 3)])
        return Value(tensor, x.axes, x.is_nonnegative)
    if is_spatial and max(pad) <= 0:
        x = call.maps(x)
        crop = tuple(tuple(-side for side in pair(pads.get(axis, 0))) for axis in (2, 3))
        return Value(call.layer("Cropping2D", x.tensor, cropping=crop, **CHANNELS_LAST), x.axes, x.is_nonnegative)
    if min(pad) < 0:
        raise NotImplementedError("it pads and crops")
    widths = [(0, 0)] * len(x.axes)
    for axis, sides in pads.items():
        widths[x.axes[axis]] = pair(sides)
    filling = max(float(value or 0.0), _LOWEST)
    tensor = call.function("pad", x.tensor, widths, constant_values=filling)
    return Value(tensor, x.axes, x.is_nonnegative and filling >= 0)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "_adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "adaptive_max_pool2d": _adaptive_max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "constant_pad_nd": lambda call, x, pad, value=0.0: _pad(call, x, pad, "constant", value),
    "max_pool2d": _max_pool2d,
    "pad": _pad,
}
