"""TensorFlow's `padding: same`: as many outputs as strides fit, the odd row and column of padding at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from thaw.errors import BackboneError


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Padding before and after one axis."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def pad_same(
    value: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: Sequence[int] = (1, 1),
    fill: float = 0.0,
) -> Tensor:
    """A map (N, C, H, W), padded for a convolution or pooling."""
    (top, bottom), (left, right) = (
        same_padding(int(size), *rest) for size, *rest in zip(value.shape[2:], kernel, stride, dilation, strict=True)
    )
    if not any((top, bottom, left, right)):
        return value
    return functional.pad(value, (left, right, top, bottom), value=fill)


def is_padded_same(config: Mapping[str, Any]) -> bool:
    """Whether a layer pads its input; raises `BackboneError` for what is neither `same` nor `valid`."""
    if config["padding"] not in ("same", "valid"):
        raise BackboneError(f"padding {config['padding']!r} is not supported, only same and valid")
    return bool(config["padding"] == "same")


def pair(value: Any) -> tuple[int, int]:
    """Two integers of a setting that is one or two."""
    first, second = value if isinstance(value, Sequence) else (value, value)
    return int(first), int(second)
