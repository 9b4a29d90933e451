"""The table of Keras layers and operations that Thaw knows, and how each becomes a PyTorch module."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from thaw.backbones.keras import plain, weighted
from thaw.backbones.keras.activations import activation
from thaw.backbones.keras.graph import Node
from thaw.errors import BackboneError

REVERSE_CHANNELS = "ReverseChannels"
"""A kind of node that Keras has no layer for: `x[..., ::-1]` of `preprocess_input` in the mode caffe."""

Build = Callable[[Mapping[str, Any], int], nn.Module]
"""`build(config, channels of the first input)`."""

_LAYERS: dict[str, Build] = {
    "Conv2D": weighted.Conv2D,
    "DepthwiseConv2D": lambda config, channels: weighted.Conv2D(config, channels, depthwise=True),
    "SeparableConv2D": weighted.SeparableConv2D,
    "Dense": weighted.Dense,
    "BatchNormalization": weighted.BatchNormalization,
    "SyncBatchNormalization": weighted.BatchNormalization,
    "LayerNormalization": weighted.LayerNormalization,
    "LayerScale": weighted.LayerScale,
    "Normalization": weighted.Normalization,
    "Activation": lambda config, _: activation(config["activation"]),
    "ReLU": lambda config, _: plain.Relu(config),
    "LeakyReLU": lambda config, _: nn.LeakyReLU(_slope(config)),
    "ELU": lambda config, _: nn.ELU(config["alpha"]),
    "Softmax": lambda config, _: activation("softmax"),
    "MaxPooling2D": lambda config, _: plain.Pool(config, maximum=True),
    "AveragePooling2D": lambda config, _: plain.Pool(config, maximum=False),
    "GlobalMaxPooling2D": lambda config, _: plain.GlobalPool(config, maximum=True),
    "GlobalAveragePooling2D": lambda config, _: plain.GlobalPool(config, maximum=False),
    "ZeroPadding2D": lambda config, _: plain.Pad(config),
    "Cropping2D": lambda config, _: plain.Crop(config),
    "Concatenate": lambda config, _: plain.Concatenate(config),
    "ops.GetItem": lambda config, _: plain.Channel(config),
    "ops.Stack": lambda config, _: plain.Stack(config),
    "Average": lambda config, _: plain.Average(),
    "CustomScaleLayer": lambda config, _: plain.ScaledSum(config),
    "Reshape": lambda config, _: plain.Reshape(config),
    "Flatten": lambda config, _: plain.Flatten(),
    "Rescaling": lambda config, _: plain.Rescaling(config),
    REVERSE_CHANNELS: lambda config, _: plain.ReverseChannels(),
}

_COMBINATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Subtract": operator.sub,
    "Multiply": operator.mul,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
    "ops.Add": operator.add,
    "ops.Subtract": operator.sub,
    "ops.Multiply": operator.mul,
    "ops.TrueDivide": operator.truediv,
    "ops.Divide": operator.truediv,
}

_IDENTITIES = frozenset(
    {
        "Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization",
        "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
        "RandomColorJitter", "RandomHue", "RandomSaturation", "RandomErasing", "RandomShear", "RandomSharpness",
        "RandomGaussianBlur", "RandomGrayscale", "RandomColorDegeneration", "RandomPosterization", "RandomInvert",
    }
)  # fmt: skip
"""Layers that do something in training only; Thaw augments and drops out by itself."""


def build_layer(node: Node, channels: int) -> nn.Module:
    """The module of a node; raises `BackboneError` with the layer's name for what is not supported."""
    try:
        if node.kind in _IDENTITIES:
            return nn.Identity()
        if node.kind in _COMBINATIONS:
            numbers = {index: value for index, value in enumerate(node.inputs) if not isinstance(value, str)}
            return plain.Merge(_COMBINATIONS[node.kind], numbers)
        if node.kind in _LAYERS:
            return _LAYERS[node.kind](node.config, channels)
        raise BackboneError("this class is not supported, and foreign code is never executed")
    except BackboneError as error:
        raise BackboneError(f"layer {'/'.join(node.path)!r} ({node.kind}): {error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BackboneError(
            f"layer {'/'.join(node.path)!r} ({node.kind}): its configuration cannot be read: "
            f"{type(error).__name__} {error}"
        ) from error


def _slope(config: Mapping[str, Any]) -> float:
    """Keras 2 says `alpha`."""
    return float(config["negative_slope"] if "negative_slope" in config else config["alpha"])
