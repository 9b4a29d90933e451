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
from thaw.errors import ExportError
from thaw.exports.deployment import INPUT, OUTPUT, Deployment
from thaw.exports.litert_metadata import with_metadata
from thaw.exports.litert_runtime import silenced
from thaw.exports.target import Infer

_CONVERSION = "thaw.exports.litert_conversion"
"""The module that a process of its own runs."""


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the .tflite file."""
    with TemporaryDirectory() as scratch:
        tflite = Path(scratch) / "model.tflite"
        # -P: a file in the current folder must not be taken for a package.
        command = [sys.executable, "-P", "-m", _CONVERSION, str(deployment.bundle), str(tflite)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
        if done.returncode != 0 or not tflite.is_file():
            reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise ExportError(f"{name}: litert-torch cannot convert the model: {reason}")
        atomic.write_bytes(place, with_metadata(tflite.read_bytes(), deployment, _size(deployment)))


def write_int8(deployment: Deployment, fp32_file: Path, images: np.ndarray, place: Path) -> None:
    """Write an existing .tflite file in int8, calibrated on images (N, S, S, 3) uint8."""
    from thaw.exports.litert_int8 import quantised

    with silenced():
        model = quantised(fp32_file.read_bytes(), images)
    atomic.write_bytes(place, with_metadata(model, deployment, _size(deployment)))


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
