"""Export target `litert`: one .tflite file, which LiteRT (TensorFlow Lite) runs on phones and small boards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thaw import atomic
from thaw.classifier.classifier import Classifier
from thaw.errors import ExportError
from thaw.exports.deployment import INPUT, OUTPUT, Deployment
from thaw.exports.labelled_files import LabelledFiles
from thaw.exports.litert_metadata import with_metadata
from thaw.exports.litert_runtime import silenced
from thaw.exports.target import Infer

_CONVERSION = "thaw.exports.litert_conversion"
"""The module that a process of its own runs."""


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the .tflite file."""
    with TemporaryDirectory() as scratch:
        graph = Path(scratch) / "model.tflite"
        write_graph(deployment, graph, name)
        package(deployment, graph, place, name)


def write_graph(deployment: Deployment, place: Path, name: str) -> None:
    """Write a .tflite file without metadata."""
    # -P: a file in the current folder must not be taken for a package.
    command = [sys.executable, "-P", "-m", _CONVERSION, str(deployment.bundle), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode != 0 or not place.is_file():
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ExportError(f"{name}: litert-torch cannot convert the model: {reason}")


def package(deployment: Deployment, graph: Path, place: Path, name: str) -> None:
    """Write an existing .tflite file with the metadata of the deployment."""
    atomic.write_bytes(place, with_metadata(graph.read_bytes(), deployment, _size(deployment)))


def quantise(fp32_graph: Path, int8_graph: Path, classifier: Classifier, images: LabelledFiles) -> int:
    """Write a .tflite file in int8, calibrated on the readable ones of some images; returns how many these are."""
    from thaw.exports.litert_int8 import quantised

    pixels = np.stack([image for image, _ in images.readable(classifier, at_model_size=True)])
    with silenced():
        int8_graph.write_bytes(quantised(fp32_graph.read_bytes(), pixels))
    return len(pixels)


def _size(deployment: Deployment) -> int:
    return json.loads(deployment.metadata["preprocessing"])["size"]


def load(file: Path) -> Infer:
    """Load the file into LiteRT, on the CPU; it runs one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(file), num_threads=torch.get_num_threads()).get_signature_runner()

    def infer(images: np.ndarray) -> np.ndarray:
        return np.concatenate([run(**{INPUT: image[None]})[OUTPUT] for image in images])

    # It announces its engine in the first run.
    with silenced():
        infer(np.zeros(run.get_input_details()[INPUT]["shape"], dtype=np.uint8))
    return infer
