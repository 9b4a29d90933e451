"""Export target `onnx`: one .onnx file with its weights inside, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thaw import atomic
from thaw.exports.deployment import AXES, INPUT, OUTPUT, Deployment
from thaw.exports.target import Infer

OPSET = 20
"""Supported by ONNX Runtime since 1.17 and OpenVINO since 2024.0."""


def model_of(deployment: Deployment) -> Any:
    """The deployment as an `onnx.ModelProto`, with its metadata in `metadata_props`."""
    import onnx

    with warnings.catch_warnings():
        # The exporter warns about deprecated parts of itself.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployment.program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _remove_source_locations(model.graph)
    for tensor, names in ((model.graph.input[0], AXES), (model.graph.output[0], AXES[:1])):
        for dimension, name in zip(tensor.type.tensor_type.shape.dim, names, strict=False):
            dimension.dim_param = name
    onnx.helper.set_model_props(model, dict(deployment.metadata))
    model.producer_name, model.producer_version = "thaw", deployment.metadata["thaw_version"]
    onnx.checker.check_model(model)
    return model


def _remove_source_locations(graph: Any) -> None:
    """Remove the exporter's notes on the Python code of each node, which contain file paths of this machine."""
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")
    parts: Iterable[Any] = (*graph.node, *graph.input, *graph.output, *graph.initializer)
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _remove_source_locations(attribute.g)


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the .onnx file."""
    atomic.write_bytes(place, model_of(deployment).SerializeToString())


def package(deployment: Deployment, graph: Path, place: Path, name: str) -> None:
    """Copy an existing .onnx file."""
    atomic.write_bytes(place, graph.read_bytes())


def load(file: Path) -> Infer:
    """Load the file into ONNX Runtime, on the CPU."""
    from thaw.exports.onnx_runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def infer(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([OUTPUT], {INPUT: images})[0])

    return infer
