"""Layers of Keras that have weights, as PyTorch modules on maps (N, C, H, W).

Each says in `keras_tensors` which of its tensors are Keras's weights, in the order of Keras's `layer.weights`, and how
to rearrange them. Kernels are transposed, never reshaped: Keras's are (height, width, in, out).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from thaw.backbones.keras.activations import activation
from thaw.backbones.keras.padding import is_padded_same, pad_same, pair
from thaw.errors import BackboneError


class KerasTensor(NamedTuple):
    """A tensor of a module: the shape of Keras's array for it, and that array's axes in the order of the tensor's."""

    tensor: Tensor
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @classmethod
    def same(cls, tensor: Tensor) -> KerasTensor:
        """A tensor whose axes have the same order in Keras."""
        return cls(tensor, tuple(tensor.shape), tuple(range(tensor.ndim)))


class Weighted(nn.Module):
    """A layer with weights."""

    def keras_tensors(self) -> list[KerasTensor]:
        """Its tensors in the order of Keras's `layer.weights`."""
        raise NotImplementedError

    def load_keras(self, arrays: Sequence[np.ndarray]) -> None:
        """Load the arrays of Keras's `layer.weights`, which have the shapes that `keras_tensors` says."""
        for (tensor, _, axes), array in zip(self.keras_tensors(), arrays, strict=True):
            value = torch.from_numpy(np.array(array, dtype=np.float32)).permute(axes)
            with torch.no_grad():
                tensor.copy_(value.reshape(tensor.shape))


class Conv2D(nn.Conv2d, Weighted):
    """A convolution; `padding: same` is TensorFlow's, which pads the bottom and the right by more."""

    def __init__(self, config: Mapping[str, Any], channels: int, depthwise: bool = False) -> None:
        check_channels_last(config)
        is_same = is_padded_same(config)
        kernel, stride, dilation = (pair(config[key]) for key in ("kernel_size", "strides", "dilation_rate"))
        extra = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
        symmetric = is_same and stride == (1, 1) and not any(value % 2 for value in extra)
        super().__init__(
            channels,
            channels * config["depth_multiplier"] if depthwise else config["filters"],
            kernel,
            stride,
            (extra[0] // 2, extra[1] // 2) if symmetric else 0,
            dilation,
            groups=channels if depthwise else config.get("groups", 1),
            bias=config["use_bias"],
        )
        self.pads_itself = is_same and not symmetric
        self.activation = activation(config["activation"])
        self._depthwise = depthwise

    def reset_parameters(self) -> None:
        """Start with zeros, which take no time; weights follow."""
        _to_zero(self)

    def forward(self, value: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if self.pads_itself:
            value = pad_same(value, _two(self.kernel_size), _two(self.stride), _two(self.dilation))
        return self.activation(self._conv_forward(value, self.weight, self.bias))

    def keras_tensors(self) -> list[KerasTensor]:
        """Kernel and bias."""
        outputs, inputs, *size = self.weight.shape
        if self._depthwise:
            # Axes (in * multiplier, 1, height, width) here.
            kernel = KerasTensor(self.weight, (*size, self.groups, outputs // self.groups), (2, 3, 0, 1))
        else:
            kernel = KerasTensor(self.weight, (*size, inputs, outputs), (3, 2, 0, 1))
        return [kernel, *_bias(self)]


class SeparableConv2D(Weighted):
    """A depthwise convolution followed by a pointwise one."""

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        self.depthwise = Conv2D({**config, "use_bias": False, "activation": "linear"}, channels, depthwise=True)
        pointwise = {**config, "kernel_size": 1, "strides": 1, "dilation_rate": 1, "padding": "valid"}
        self.pointwise = Conv2D(pointwise, channels * config["depth_multiplier"])

    def forward(self, value: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        return self.pointwise(self.depthwise(value))

    def keras_tensors(self) -> list[KerasTensor]:
        """Depthwise kernel, pointwise kernel and bias."""
        return [*self.depthwise.keras_tensors(), *self.pointwise.keras_tensors()]


class Dense(nn.Linear, Weighted):
    """A linear layer on features (N, C), or on every position of a map (N, C, H, W)."""

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        super().__init__(channels, config["units"], bias=config["use_bias"])
        self.activation = activation(config["activation"])

    def reset_parameters(self) -> None:
        """Start with zeros; weights follow."""
        _to_zero(self)

    def forward(self, value: Tensor) -> Tensor:
        """Transform (N, C) or (N, C, H, W)."""
        if value.ndim == 4:
            return self.activation(super().forward(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return self.activation(super().forward(value))

    def keras_tensors(self) -> list[KerasTensor]:
        """Kernel and bias."""
        return [KerasTensor(self.weight, (self.in_features, self.out_features), (1, 0)), *_bias(self)]


class BatchNormalization(nn.BatchNorm2d, Weighted):
    """BatchNorm with Keras's epsilon and momentum; a scale or shift that Keras leaves out is no parameter."""

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        check_last_axis(config)
        super().__init__(channels, eps=config["epsilon"], momentum=1 - config["momentum"])
        self._gamma, self._beta = bool(config["scale"]), bool(config["center"])
        for name, learns, value in (("weight", self._gamma, torch.ones), ("bias", self._beta, torch.zeros)):
            if not learns:
                delattr(self, name)
                self.register_buffer(name, value(channels), persistent=False)

    def keras_tensors(self) -> list[KerasTensor]:
        """Gamma, beta, moving mean and moving variance."""
        learned = [tensor for tensor, learns in ((self.weight, self._gamma), (self.bias, self._beta)) if learns]
        return [
            KerasTensor.same(tensor) for tensor in (*learned, self.running_mean, self.running_var) if tensor is not None
        ]


class LayerNormalization(nn.LayerNorm, Weighted):
    """LayerNorm over the channels of each position."""

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        check_last_axis(config)
        if config.get("rms_scaling"):
            raise BackboneError("rms_scaling is not supported")
        super().__init__(channels, eps=config["epsilon"], elementwise_affine=bool(config["scale"] or config["center"]))
        self._uses = (bool(config["scale"]), bool(config["center"]))
        if any(self._uses) and not all(self._uses):
            raise BackboneError("LayerNormalization needs both scale and center, or neither")

    def forward(self, value: Tensor) -> Tensor:
        """Normalise (N, C) or (N, C, H, W)."""
        if value.ndim == 4:
            return super().forward(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return super().forward(value)

    def keras_tensors(self) -> list[KerasTensor]:
        """Gamma and beta."""
        return [KerasTensor.same(self.weight), KerasTensor.same(self.bias)] if all(self._uses) else []


class LayerScale(Weighted):
    """A learned factor for each channel (ConvNeXt)."""

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(config["init_values"])))

    def forward(self, value: Tensor) -> Tensor:
        """Scale (N, C, H, W)."""
        return value * self.weight[:, None, None]

    def keras_tensors(self) -> list[KerasTensor]:
        """The factors."""
        return [KerasTensor.same(self.weight)]


class Normalization(Weighted):
    """`(x - mean) / deviation` for each channel, with values from the configuration or from the weights."""

    mean: Tensor
    variance: Tensor

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        check_last_axis(config)
        if config.get("invert"):
            raise BackboneError("invert is not supported")
        self._is_given = config.get("mean") is not None
        for name, otherwise in (("mean", 0.0), ("variance", 1.0)):
            given = config[name] if self._is_given else otherwise
            values = torch.as_tensor(given, dtype=torch.float32).flatten().expand(channels).clone()
            self.register_buffer(name, values, persistent=not self._is_given)
        self._count = torch.zeros(())

    def forward(self, value: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        deviation = self.variance.sqrt().clamp(min=1e-7)
        return (value - self.mean[:, None, None]) / deviation[:, None, None]

    def keras_tensors(self) -> list[KerasTensor]:
        """Mean, variance, and the number of values that they were computed from, which is not kept."""
        stored = (self.mean, self.variance, self._count)
        return [] if self._is_given else [KerasTensor.same(tensor) for tensor in stored]


def check_channels_last(config: Mapping[str, Any]) -> None:
    """Raise `BackboneError` for maps (N, C, H, W)."""
    if config.get("data_format") == "channels_first":
        raise BackboneError("data_format channels_first is not supported; save the model with channels_last")


def check_last_axis(config: Mapping[str, Any]) -> None:
    """Raise `BackboneError` for an axis other than that of the channels."""
    axis = config["axis"]
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, 3):
        raise BackboneError(f"axis {axis} is not supported, only that of the channels, -1")


def _to_zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _bias(layer: nn.Conv2d | nn.Linear) -> list[KerasTensor]:
    return [] if layer.bias is None else [KerasTensor.same(layer.bias)]


def _two(value: tuple[int, ...]) -> tuple[int, int]:
    return cast(tuple[int, int], value)
