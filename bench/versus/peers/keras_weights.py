"""Pre-trained weights in the networks of keras.applications: timm's MobileNetV2, and those of a `.keras` file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
from safetensors.numpy import load_file

BLOCKS_OF_STAGE = (1, 2, 3, 4, 3, 3, 1)
TIMM_EPSILON = 1e-5


def load_mobilenetv2(base: keras.Model, file: Path) -> None:
    """Set the weights of every layer; raises `KeyError` or `ValueError` if the networks do not match."""
    tensors = load_file(file)
    for layer_name, convolution, norm in _pairs():
        layer = base.get_layer(layer_name[0])
        kernel = tensors[f"{convolution}.weight"]
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        layer.set_weights([kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))])
        batch_norm = base.get_layer(layer_name[1])
        batch_norm.epsilon = TIMM_EPSILON
        batch_norm.set_weights(
            [tensors[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
        )


def load_from_model(base: keras.Model, file: Path) -> None:
    """Set the weights of every layer from those of the same name in a `.keras` file; raises `KeyError` for others."""
    found = {}
    waiting: list[keras.Layer] = [keras.saving.load_model(file, compile=False)]
    while waiting:
        layer = waiting.pop()
        found[layer.name] = layer
        waiting += getattr(layer, "layers", [])
    for layer in base.layers:
        if layer.weights:
            layer.set_weights(found[layer.name].get_weights())


def _pairs() -> Iterator[tuple[tuple[str, str], str, str]]:
    """(Keras convolution, Keras BatchNorm), timm convolution, timm BatchNorm; from the pixels up."""
    yield ("Conv1", "bn_Conv1"), "conv_stem", "bn1"
    number = 0
    for stage, blocks in enumerate(BLOCKS_OF_STAGE):
        for block in range(blocks):
            timm = f"blocks.{stage}.{block}"
            prefix = f"block_{number}" if number else "expanded_conv"
            steps = [("expand", "conv_pw"), ("depthwise", "conv_dw"), ("project", "conv_pwl")]
            if number == 0:
                steps = [("depthwise", "conv_dw"), ("project", "conv_pw")]
            for index, (keras_step, timm_step) in enumerate(steps, start=1):
                layer = f"{prefix}_{keras_step}"
                yield (layer, f"{layer}_BN"), f"{timm}.{timm_step}", f"{timm}.bn{index}"
            number += 1
    yield ("Conv_1", "Conv_1_bn"), "conv_head", "bn2"
