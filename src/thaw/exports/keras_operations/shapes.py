"""Reductions, shapes, and selections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch

from thaw.exports.keras_graph import CHANNELS_LAST, Call, Constant, Ints, Value


def _reduced(kind: str, name: str) -> Callable[..., Value]:
    """`Global<kind>Pooling2D` over the positions of maps, `keras.ops.<name>` over other axes."""

    def build(call: Call, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
        dims = [dim] if isinstance(dim, int) else list(dim or range(len(x.axes)))
        dims = sorted(x.dim(item) for item in dims)
        if 0 in dims:
            raise NotImplementedError("it reduces the batch")
        kept = [index for index in range(len(x.axes)) if index not in dims]
        if kind and len(x.axes) == 4 and dims == [2, 3]:
            x = call.maps(x)
            tensor = call.layer(f"Global{kind}Pooling2D", x.tensor, keepdims=keepdim, **CHANNELS_LAST)
        else:
            held = tuple(x.axes[item] for item in dims)
            tensor = call.function(name, x.tensor, axis=held, keepdims=keepdim)
        if keepdim:
            return Value(tensor, x.axes, x.is_nonnegative)
        order = sorted(x.axes[index] for index in kept)
        return Value(tensor, tuple(order.index(x.axes[index]) for index in kept), x.is_nonnegative)

    return build


def _same(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    return x


def _to(call: Call, x: Value, *arguments: Any, **keywords: Any) -> Value:
    wanted = {item for item in (*arguments, *keywords.values()) if isinstance(item, torch.dtype)}
    if not wanted <= {torch.float32}:
        raise NotImplementedError("it converts to another number format than float32")
    return x


def _permute(call: Call, x: Value, dims: Sequence[int]) -> Value:
    return replace(x, axes=tuple(x.axes[x.dim(dim)] for dim in dims))


def _transpose(call: Call, x: Value, first: int, second: int) -> Value:
    axes = list(x.axes)
    axes[first], axes[second] = axes[second], axes[first]
    return replace(x, axes=tuple(axes))


def _elements(shape: Sequence[int | None]) -> int:
    """Elements for each image."""
    return prod(size or 0 for size in shape[1:])


def _reshaped(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    """To the shape of PyTorch's result. Axes of length 1 may lie anywhere, so they need no permutation."""
    wanted = call.shape
    if wanted == x.shape:
        return x
    if not wanted or wanted[0] is not None or _elements(wanted) != _elements(x.shape):
        raise NotImplementedError("it mixes images")
    long = [axis for index, axis in enumerate(x.axes) if index == 0 or x.shape[index] != 1]
    if long != sorted(long):
        x = call.in_order(x)
    tensor = call.layer("Reshape", x.tensor, target_shape=wanted[1:])
    return Value(tensor, tuple(range(len(wanted))), x.is_nonnegative)


def _expand(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    if call.shape != x.shape:
        raise NotImplementedError("it repeats values")
    return x


def _cat(call: Call, parts: Sequence[Any], dim: int = 0) -> Value:
    if not all(isinstance(part, Value) for part in parts):
        raise NotImplementedError("it takes a constant")
    first = parts[0]
    tensors = [call.with_same_axes(first, part)[1].tensor for part in parts]
    if first.dim(dim) == 0:
        raise NotImplementedError("it joins batches")
    tensor = call.layer("Concatenate", tensors, axis=first.axes[first.dim(dim)])
    return Value(tensor, first.axes, all(part.is_nonnegative for part in parts))


def _stack(call: Call, parts: Sequence[Any], dim: int = 0) -> Value:
    if not all(isinstance(part, Value) for part in parts):
        raise NotImplementedError("it takes a constant")
    tensors = [call.in_order(part).tensor for part in parts]
    axes = tuple(range(len(call.shape)))
    axis = dim % len(axes)
    if axis == 0:
        raise NotImplementedError("it joins batches")
    return Value(call.function("stack", tensors, axis=axis), axes, all(part.is_nonnegative for part in parts))


def _taken(call: Call, x: Value, dim: int, indices: Sequence[int]) -> Value:
    """The elements with these indices along an axis."""
    if dim == 0:
        raise NotImplementedError("it selects images")
    return replace(x, tensor=call.function("take", x.tensor, list(indices), axis=x.axes[dim]))


def _slice(call: Call, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    dim = x.dim(dim)
    length = x.shape[dim]
    if length is None:
        if start in (None, 0) and step == 1 and call.node.meta["val"].shape == call.node.args[0].meta["val"].shape:  # type: ignore[union-attr]
            return x
        raise NotImplementedError("it selects images")
    wanted = range(*slice(start, end, step).indices(length))
    if len(wanted) == length:
        return x
    if len(x.axes) == 4 and dim >= 2 and step == 1:
        x = call.maps(x)
        crop = [(0, 0), (0, 0)]
        crop[dim - 2] = (wanted.start, length - wanted.stop)
        tensor = call.layer("Cropping2D", x.tensor, cropping=tuple(crop), **CHANNELS_LAST)
        return Value(tensor, x.axes, x.is_nonnegative)
    return _taken(call, x, dim, wanted)


def _select(call: Call, x: Value, dim: int, index: int) -> Value:
    dim = x.dim(dim)
    length = x.shape[dim]
    if length is None:
        raise NotImplementedError("it selects an image")
    taken = _taken(call, x, dim, [index % length])
    return _reshaped(call, taken)


def _index(call: Call, x: Value, indices: Sequence[Constant | None]) -> Value:
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(given) != 1 or not isinstance(given[0][1], Constant) or given[0][1].tensor.ndim != 1:
        raise NotImplementedError("it selects with several indices, or with ones that depend on the images")
    dim, index = given[0]
    return _index_select(call, x, dim, index)


def _index_select(call: Call, x: Value, dim: int, index: Constant) -> Value:
    dim = x.dim(dim)
    return _taken(call, x, dim, [int(item) % (x.shape[dim] or 1) for item in index.tensor])


def _flip(call: Call, x: Value, dims: Sequence[int]) -> Value:
    if any(x.dim(dim) == 0 for dim in dims):
        raise NotImplementedError("it reorders images")
    tensor = call.function("flip", x.tensor, axis=tuple(x.axes[x.dim(dim)] for dim in dims))
    return replace(x, tensor=tensor)


def _split(call: Call, x: Value, sizes: Ints, dim: int = 0) -> tuple[Value, ...]:
    """Parts of these sizes, or of one size; the traced result says how many there are."""
    dim = x.dim(dim)
    lengths = [part.shape[dim] for part in call.node.meta["val"]]
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return tuple(_taken(call, x, dim, range(start, start + size)) for start, size in zip(starts, lengths, strict=True))


def _getitem(call: Call, parts: Sequence[Value], index: int) -> Value:
    return parts[index]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "_to_copy": _to,
    "alias": _same,
    "amax": _reduced("Max", "max"),
    "amin": _reduced("", "min"),
    "cat": _cat,
    "chunk": _split,
    "clone": _same,
    "concat": _cat,
    "contiguous": _same,
    "detach": _same,
    "expand": _expand,
    "feature_dropout": _same,
    "flatten": _reshaped,
    "flip": _flip,
    "getitem": _getitem,
    "index": _index,
    "index_select": _index_select,
    "mean": _reduced("Average", "mean"),
    "permute": _permute,
    "reshape": _reshaped,
    "select": _select,
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _reshaped,
    "stack": _stack,
    "sum": _reduced("", "sum"),
    "to": _to,
    "transpose": _transpose,
    "type_as": _same,
    "unflatten": _reshaped,
    "unsqueeze": _reshaped,
    "view": _reshaped,
}
