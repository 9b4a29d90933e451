"""One model of a Triton model repository: NAME/config.pbtxt, labels.txt and 1/model.onnx, batched by the server."""

from __future__ import annotations

import json
from pathlib import Path

from thaw import atomic
from thaw.export import onnx_target
from thaw.export.deployment import INPUT, OUTPUT, Deployment
from thaw.export.target import VERSION, Infer

MAX_BATCH = 32
_LABELS, _MODEL = "labels.txt", "model.onnx"
_CONFIG = """\
name: {name}
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {{ name: "{input}" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {classes} ] label_filename: "{labels}" }} ]
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
version_policy {{ latest {{ num_versions: 1 }} }}
{parameters}"""


def write(deployment: Deployment, folder: Path, name: str) -> None:
    """Write the folder NAME; the folder that holds it is the model repository."""
    (folder / VERSION).mkdir(parents=True)
    onnx_target.write(deployment, folder / VERSION / _MODEL)
    _configure(deployment, folder, name)


def adopt(deployment: Deployment, model: Path, folder: Path, name: str) -> None:
    """Take over an .onnx file that is there already as the folder NAME."""
    (folder / VERSION).mkdir(parents=True)
    onnx_target.adopt(model, folder / VERSION / _MODEL)
    _configure(deployment, folder, name)


def _configure(deployment: Deployment, folder: Path, name: str) -> None:
    """Write what the server reads beside the model."""
    parameters = "".join(
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}\n"
        for key, value in deployment.facts.items()
    )
    config = _CONFIG.format(
        name=_quoted(name),
        max_batch=MAX_BATCH,
        input=INPUT,
        output=OUTPUT,
        classes=len(deployment.classes),
        labels=_LABELS,
        parameters=parameters,
    )
    atomic.write_text(folder / "config.pbtxt", config)
    atomic.write_text(folder / _LABELS, "".join(f"{label}\n" for label in deployment.classes))


def load(folder: Path) -> Infer:
    """Run the model as the server does, on the CPU."""
    return onnx_target.load(folder / VERSION / _MODEL)


def _quoted(text: str) -> str:
    """A string of protobuf's text format, whose escapes are those of JSON for plain ASCII and quotes."""
    return json.dumps(text, ensure_ascii=False)
