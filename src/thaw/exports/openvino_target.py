"""Export target `openvino`: a folder for OpenVINO Model Server, NAME/1/model.xml and model.bin, in fp32.

The ONNX graph is read through OpenVINO's front end; `openvino.convert_model` does the same but reports usage over
the network.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thaw.errors import ExportError, first_line
from thaw.exports import onnx_target
from thaw.exports.deployment import Deployment
from thaw.exports.target import MODEL_VERSION, Infer

_MODEL = "model.xml"


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the model folder."""
    with TemporaryDirectory() as scratch:
        graph = Path(scratch) / "model.onnx"
        onnx_target.write(deployment, graph, name)
        package(deployment, graph, place, name)


def package(deployment: Deployment, graph: Path, place: Path, name: str) -> None:
    """Convert an existing .onnx file to a model folder."""
    from thaw.openvino_runtime import FrontEndManager, openvino

    front_end = FrontEndManager().load_by_framework("onnx")
    model = front_end.convert(front_end.load(str(graph)))
    model.get_parameters()[0].set_layout(openvino.Layout("NHWC"))
    for key, value in deployment.metadata.items():
        model.set_rt_info(value, ["thaw", key])
    (place / MODEL_VERSION).mkdir(parents=True)
    try:
        openvino.save_model(model, place / MODEL_VERSION / _MODEL, compress_to_fp16=False)
    except RuntimeError as error:
        # OpenVINO does not say why it cannot write, but Python does.
        (place / MODEL_VERSION / "model.bin").write_bytes(bytes(graph.stat().st_size))
        raise ExportError(f"{name}: OpenVINO cannot write the model: {first_line(error)}") from error


def load(place: Path) -> Infer:
    """Load the folder into OpenVINO, on the CPU and in fp32, which is not the default on CPUs with bfloat16."""
    from thaw.openvino_runtime import UNPINNED, openvino, properties

    model = openvino.Core().compile_model(
        place / MODEL_VERSION / _MODEL,
        "CPU",
        {
            properties.hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: torch.get_num_threads(),
            **UNPINNED,
        },
    )

    def infer(images: np.ndarray) -> np.ndarray:
        return np.array(model(images)[0])

    return infer
