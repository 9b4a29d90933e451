"""Export target `triton`: one model of a model repository, NAME/config.pbtxt, labels.txt and 1/model.onnx."""

from __future__ import annotations

import json
from pathlib import Path

from thaw import atomic
from thaw.exports import onnx_target
from thaw.exports.deployment import INPUT, OUTPUT, Deployment
from thaw.exports.target import MODEL_VERSION, Infer, label_lines

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


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the model folder; its parent is the model repository."""
    (place / MODEL_VERSION).mkdir(parents=True)
    onnx_target.write(deployment, place / MODEL_VERSION / _MODEL, name)
    _write_config(deployment, place, name)


def package(deployment: Deployment, graph: Path, place: Path, name: str) -> None:
    """Write the model folder around an existing .onnx file."""
    (place / MODEL_VERSION).mkdir(parents=True)
    onnx_target.package(deployment, graph, place / MODEL_VERSION / _MODEL, name)
    _write_config(deployment, place, name)


def _write_config(deployment: Deployment, place: Path, name: str) -> None:
    """Write the server's configuration of the model, and the names of its classes."""
    parameters = "".join(
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}\n"
        for key, value in deployment.metadata.items()
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
    atomic.write_text(place / "config.pbtxt", config)
    atomic.write_text(place / _LABELS, label_lines(deployment.classes, _LABELS))


def load(place: Path) -> Infer:
    """Load the model into ONNX Runtime, as the server does, on the CPU."""
    return onnx_target.load(place / MODEL_VERSION / _MODEL)


def _quoted(text: str) -> str:
    """A string in protobuf's text format, which escapes ASCII and quotes as JSON does."""
    return json.dumps(text, ensure_ascii=False)
