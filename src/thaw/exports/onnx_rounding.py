"""Weights of the convolutions of an ONNX graph rounded for int8, given what the convolutions see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from thaw.backbones.rounding import (
    Convolution,
    InputStatistics,
    PatchStatistics,
    levels_of,
    rounded_weights,
    scale_of_rows,
)
from thaw.exports.onnx_graph import convolutions, replace_values, stored_tensors


def round_weights(model: Any, seen: Mapping[str, InputStatistics]) -> dict[str, np.ndarray]:
    """Round the weights of convolutions to what int8 represents, and correct their biases, in place.

    Args:
        model: An `onnx.ModelProto`.
        seen: What each convolution sees, by its name.

    Returns:
        The scale of each row of weights (O,), by the name of the tensor.
    """
    from onnx import numpy_helper

    tensors, scales = stored_tensors(model), {}
    for node in convolutions(model):
        weights = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
        scale = scale_of_rows(weights, levels_of(weights.shape))
        rounded, shift = rounded_weights(weights.reshape(len(weights), -1), scale, seen[node.name])
        replace_values(tensors[node.input[1]], rounded.reshape(weights.shape))
        scales[node.input[1]] = scale
        if len(node.input) < 3:
            node.input.append(f"{node.input[1]}_bias")
            model.graph.initializer.append(numpy_helper.from_array(-shift.astype(np.float32), node.input[2]))
        elif node.input[2] in tensors:
            replace_values(tensors[node.input[2]], numpy_helper.to_array(tensors[node.input[2]]) - shift)
    return scales


def statistics_of(model: Any, inputs: Iterable[Mapping[str, np.ndarray]]) -> dict[str, InputStatistics]:
    """What each convolution sees, by its name.

    Args:
        model: An `onnx.ModelProto`.
        inputs: For each image, the inputs (1, C, H, W) of the convolutions by the names of the tensors.
    """
    shapes = {name: tuple(tensor.dims) for name, tensor in stored_tensors(model).items()}
    nodes = convolutions(model)
    patches = {node.name: PatchStatistics(_convolution(node, shapes[node.input[1]])) for node in nodes}
    for of_image in inputs:
        for node in nodes:
            patches[node.name].add(torch.from_numpy(of_image[node.input[0]]))
    return {name: found.statistics() for name, found in patches.items()}


def _convolution(node: Any, weights: tuple[int, ...]) -> Convolution:
    """The shape of a node of an ONNX graph."""
    import onnx

    found = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    top, left, bottom, right = found.get("pads", (0, 0, 0, 0))
    strides, dilations = found.get("strides", (1, 1)), found.get("dilations", (1, 1))
    padding = (left, right, top, bottom)
    return Convolution(weights, padding, (strides[0], strides[1]), (dilations[0], dilations[1]), found.get("group", 1))
