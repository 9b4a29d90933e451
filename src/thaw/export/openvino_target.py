"""A folder as OpenVINO Model Server reads it: NAME/1/model.xml and model.bin, in fp32.

OpenVINO reads the ONNX graph through its own front end; `openvino.convert_model` would do the same, but reports its use
over the network.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thaw.export import onnx_target
from thaw.export.deployment import Deployment
from thaw.export.target import VERSION, Infer

_MODEL = "model.xml"


def write(deployment: Deployment, folder: Path) -> None:
    """Write the folder NAME."""
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        onnx_target.write(deployment, file)
        adopt(deployment, file, folder)


def adopt(deployment: Deployment, file: Path, folder: Path) -> None:
    """Take over an .onnx file that is there already as the folder NAME."""
    import openvino
    from openvino.frontend import FrontEndManager

    front_end = FrontEndManager().load_by_framework("onnx")
    model = front_end.convert(front_end.load(str(file)))
    model.get_parameters()[0].set_layout(openvino.Layout("NHWC"))
    for key, value in deployment.facts.items():
        model.set_rt_info(value, ["thaw", key])
    (folder / VERSION).mkdir(parents=True)
    openvino.save_model(model, folder / VERSION / _MODEL, compress_to_fp16=False)


def load(folder: Path) -> Infer:
    """Run a written folder on the CPU in fp32, which a CPU with bfloat16 does only when it is told to."""
    import openvino
    from openvino import properties

    model = openvino.Core().compile_model(
        folder / VERSION / _MODEL,
        "CPU",
        {
            properties.hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: torch.get_num_threads(),
        },
    )

    def run(images: np.ndarray) -> np.ndarray:
        return np.array(model(images)[0])

    return run
