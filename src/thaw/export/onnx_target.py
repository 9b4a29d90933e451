"""One .onnx file that holds its weights, and ONNX Runtime to check it."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thaw.export.deployment import AXES, INPUT, OUTPUT, Deployment
from thaw.export.target import Infer

OPSET = 20
"""Read by ONNX Runtime since 1.17 and OpenVINO since 2024.0."""


def model_of(deployment: Deployment) -> Any:
    """The graph as an `onnx.ModelProto` with its facts in `metadata_props`."""
    import onnx

    with warnings.catch_warnings():
        # The exporter warns of its own parts that it will replace.
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
    _forget_the_source(model.graph)
    for tensor, names in ((model.graph.input[0], AXES), (model.graph.output[0], AXES[:1])):
        for dimension, name in zip(tensor.type.tensor_type.shape.dim, names, strict=False):
            dimension.dim_param = name
    onnx.helper.set_model_props(model, dict(deployment.facts))
    model.producer_name, model.producer_version = "thaw", deployment.facts["thaw_version"]
    onnx.checker.check_model(model)
    return model


def _forget_the_source(graph: Any) -> None:
    """Drop what the exporter notes about the Python code that a node came from, paths included."""
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")
    parts: Iterable[Any] = (*graph.node, *graph.input, *graph.output, *graph.initializer)
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_the_source(attribute.g)


def write(deployment: Deployment, file: Path) -> None:
    """Write the .onnx file."""
    file.write_bytes(model_of(deployment).SerializeToString())


def adopt(model: Path, file: Path) -> None:
    """Take over an .onnx file that is there already."""
    shutil.copyfile(model, file)


def load(file: Path) -> Infer:
    """Run a written file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([OUTPUT], {INPUT: images})[0])

    return run
