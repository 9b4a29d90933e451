"""Layers and operations of Keras without weights, as PyTorch modules on maps (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from thaw.backbones.keras.padding import is_padded_same, pad_same, pair
from thaw.backbones.keras.weighted import check_channels_last, check_last_axis
from thaw.errors import BackboneError


class Merge(nn.Module):
    """Combines several values, or a value and constants, from left to right.

    A constant is a number, or one for each channel.
    """

    def __init__(
        self, combine: Callable[[Any, Any], Any], constants: Mapping[int, float | tuple[float, ...]] | None = None
    ) -> None:
        super().__init__()
        self._combine = combine
        self._numbers: dict[int, float | str] = {}
        for index, constant in sorted((constants or {}).items()):
            if isinstance(constant, tuple):
                name = f"constant{index}"
                self.register_buffer(name, torch.tensor(constant)[:, None, None], persistent=False)
                self._numbers[index] = name
            else:
                self._numbers[index] = constant

    def forward(self, *values: Tensor) -> Tensor:
        """Combine (N, C, H, W) of equal or broadcastable shapes."""
        taken: list[Any] = list(values)
        for index, number in self._numbers.items():
            taken.insert(index, getattr(self, number) if isinstance(number, str) else number)
        return reduce(self._combine, taken)


class Channel(nn.Module):
    """One channel of a map."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._channel = int(config["channel"])

    def forward(self, value: Tensor) -> Tensor:
        """(N, H, W) of (N, C, H, W)."""
        return value[:, self._channel]


class Stack(nn.Module):
    """Maps (N, H, W) as the channels of one."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        check_last_axis(config)

    def forward(self, *values: Tensor) -> Tensor:
        """Stack to (N, C, H, W)."""
        return torch.stack(values, dim=1)


class Average(nn.Module):
    """The mean of several maps."""

    def forward(self, *values: Tensor) -> Tensor:
        """Average (N, C, H, W)."""
        return sum(values[1:], start=values[0]) / len(values)


class Concatenate(nn.Module):
    """Channels of several maps, one after the other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        check_last_axis(config)

    def forward(self, *values: Tensor) -> Tensor:
        """Concatenate (N, C, H, W)."""
        return torch.cat(values, dim=1)


class ScaledSum(nn.Module):
    """`a + scale * b`: CustomScaleLayer of InceptionResNetV2."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._scale = float(config["scale"])

    def forward(self, value: Tensor, residual: Tensor) -> Tensor:
        """Combine (N, C, H, W)."""
        return value + self._scale * residual


class Relu(nn.Module):
    """ReLU with Keras's maximum, slope and threshold."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        slope = config.get("negative_slope") or 0.0
        self._threshold, self._maximum = float(config.get("threshold") or 0.0), config.get("max_value")
        self._slope = float(slope[0] if isinstance(slope, list) else slope)

    def forward(self, value: Tensor) -> Tensor:
        """Apply to any shape."""
        if not (self._slope or self._threshold):
            # These functions, because engines and the exports know them.
            match self._maximum:
                case None:
                    return functional.relu(value)
                case 6.0:
                    return functional.relu6(value)
        above = value if self._maximum is None else value.clamp(max=float(self._maximum))
        return torch.where(value >= self._threshold, above, self._slope * (value - self._threshold))


class Pool(nn.Module):
    """Maximum or average pooling; the average does not count padding."""

    def __init__(self, config: Mapping[str, Any], maximum: bool) -> None:
        super().__init__()
        check_channels_last(config)
        self._kernel, self._stride = pair(config["pool_size"]), pair(config["strides"] or config["pool_size"])
        self._same, self._maximum = is_padded_same(config), maximum

    def forward(self, value: Tensor) -> Tensor:
        """Pool (N, C, H, W)."""
        if self._maximum:
            padded = pad_same(value, self._kernel, self._stride, fill=float("-inf")) if self._same else value
            return functional.max_pool2d(padded, self._kernel, self._stride)
        if not self._same:
            return functional.avg_pool2d(value, self._kernel, self._stride)
        if self._stride == (1, 1) and all(size % 2 for size in self._kernel):
            padding = (self._kernel[0] // 2, self._kernel[1] // 2)
            return functional.avg_pool2d(value, self._kernel, self._stride, padding, count_include_pad=False)
        counted = torch.ones_like(value[:1, :1])
        sums, counts = (
            functional.avg_pool2d(pad_same(part, self._kernel, self._stride), self._kernel, self._stride)
            for part in (value, counted)
        )
        return sums / counts


class GlobalPool(nn.Module):
    """The maximum or average of each channel."""

    def __init__(self, config: Mapping[str, Any], maximum: bool) -> None:
        super().__init__()
        check_channels_last(config)
        self._keeps, self._maximum = bool(config.get("keepdims")), maximum

    def forward(self, value: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (N, C), or (N, C, 1, 1)."""
        pooled = value.amax(dim=(2, 3), keepdim=True) if self._maximum else value.mean(dim=(2, 3), keepdim=True)
        return pooled if self._keeps else pooled.flatten(1)


class Pad(nn.Module):
    """Zeros around a map."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        check_channels_last(config)
        (self._top, self._bottom), (self._left, self._right) = (pair(sides) for sides in _sides(config["padding"]))

    def forward(self, value: Tensor) -> Tensor:
        """Pad (N, C, H, W)."""
        return functional.pad(value, (self._left, self._right, self._top, self._bottom))


class Crop(nn.Module):
    """A map without its border."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        check_channels_last(config)
        (self._top, self._bottom), (self._left, self._right) = (pair(sides) for sides in _sides(config["cropping"]))

    def forward(self, value: Tensor) -> Tensor:
        """Crop (N, C, H, W)."""
        height, width = value.shape[2:]
        return value[:, :, self._top : height - self._bottom, self._left : width - self._right]


class Reshape(nn.Module):
    """(N, C) to a map of one pixel, or back."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        shape = tuple(config["target_shape"])
        if shape[:-1] not in ((), (1, 1)):
            raise BackboneError(f"target_shape {shape} is not supported, only (1, 1, C) and (C,)")
        self._is_map = len(shape) == 3

    def forward(self, value: Tensor) -> Tensor:
        """Reshape."""
        features = value.flatten(1)
        return features[:, :, None, None] if self._is_map else features


class Flatten(nn.Module):
    """All values of a map, in Keras's order: by row, column, channel."""

    def forward(self, value: Tensor) -> Tensor:
        """Flatten (N, C, H, W) to (N, H * W * C)."""
        return value.permute(0, 2, 3, 1).flatten(1) if value.ndim == 4 else value


class Rescaling(nn.Module):
    """`scale * x + offset`, with one number or one for each channel."""

    scale: Tensor
    offset: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        for name in ("scale", "offset"):
            value = torch.as_tensor(config[name], dtype=torch.float32)
            self.register_buffer(name, value[:, None, None] if value.ndim else value, persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """Rescale (N, C, H, W)."""
        return value * self.scale + self.offset


class ReverseChannels(nn.Module):
    """RGB to BGR."""

    def forward(self, value: Tensor) -> Tensor:
        """Reverse the channels of (N, 3, H, W)."""
        return value.flip(1)


def _sides(value: Any) -> tuple[Any, Any]:
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return first, second
