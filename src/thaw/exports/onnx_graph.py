"""The layers of an ONNX graph, and their weights, read and replaced."""

from __future__ import annotations

from typing import Any

import numpy as np


def convolutions(model: Any) -> list[Any]:
    """The two-dimensional convolutions of an `onnx.ModelProto` whose weights are stored, each used once."""
    dims = {name: len(tensor.dims) for name, tensor in stored_tensors(model).items()}
    uses = [name for node in model.graph.node for name in node.input]
    return [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and dims.get(node.input[1]) == 4 and uses.count(node.input[1]) == 1
    ]


def last_layer(model: Any) -> Any:
    """The node of the last linear layer of an `onnx.ModelProto`; its output are the logits."""
    return [node for node in model.graph.node if node.op_type == "Gemm"][-1]


def stored_tensors(model: Any) -> dict[str, Any]:
    """The weights of an `onnx.ModelProto` as `onnx.TensorProto`, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def replace_values(tensor: Any, values: np.ndarray) -> None:
    """Put other values into an `onnx.TensorProto`, in float32."""
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
