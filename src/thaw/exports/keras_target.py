"""Export target `keras`: one .keras file of Keras' own layers, which Keras opens on PyTorch, TensorFlow and JAX.

It takes images at the model's size. Layers stay what they are, BatchNormalization too, so that Keras can fine-tune it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thaw.errors import ExportError
from thaw.exports.deployment import Deployment
from thaw.exports.target import Infer
from thaw.in_use import when_closed

METADATA_FILE = "thaw.json"
"""The file inside the .keras that holds the classes and the rest of the metadata."""
BATCH = 16
BACKENDS_TOLERANCE = 1e-4
"""Largest accepted difference of a probability between the backends of Keras."""

_PREDICT = f"""
import sys
import keras, numpy
model = keras.saving.load_model(sys.argv[1], compile=False, safe_mode=True)
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), batch_size={BATCH}, verbose=0))
"""
"""What a program without Thaw does."""


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the .keras file."""
    from thaw.exports.keras_graph import model_of
    from thaw.exports.keras_operations import OPERATIONS
    from thaw.keras_runtime import keras

    metadata = json.dumps(_metadata(deployment), indent=2, ensure_ascii=False)
    # A GPU has nothing to do here, and Keras converts tensors in a way that NumPy warns about.
    with keras.device("cpu"), warnings.catch_warnings(), TemporaryDirectory(dir=place.parent) as scratch:
        warnings.simplefilter("ignore")
        model = model_of(deployment.program, OPERATIONS, _identifier(Path(name).stem))
        file = Path(scratch) / place.name
        model.save(file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(METADATA_FILE, metadata)
        when_closed(lambda: os.replace(file, place))


def _metadata(deployment: Deployment) -> dict[str, object]:
    """The metadata, in which what is JSON inside is a value of its own."""
    values: dict[str, object] = dict(deployment.metadata)
    values.update({key: json.loads(deployment.metadata[key]) for key in ("classes", "decision", "preprocessing")})
    return values


def _identifier(name: str) -> str:
    """A name that every backend accepts for a model."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).lstrip("_") or "classifier"


def load(file: Path) -> Infer:
    """Run the file in Keras, in processes without Thaw: on PyTorch, and on TensorFlow where it is installed."""

    def infer(images: np.ndarray) -> np.ndarray:
        probabilities = _predicted(file, images, "torch")
        if find_spec("tensorflow"):
            difference = float(np.abs(_predicted(file, images, "tensorflow") - probabilities).max())
            # Written so that NaN fails.
            if not difference <= BACKENDS_TOLERANCE:
                raise ExportError(
                    f"Keras on TensorFlow and on PyTorch differ by {difference:.2g} in a probability, more than "
                    f"{BACKENDS_TOLERANCE:g}; the export was discarded"
                )
        return probabilities

    return infer


def _predicted(file: Path, images: np.ndarray, backend: str) -> np.ndarray:
    """The probabilities that Keras gives in a new process, on the CPU."""
    threads = str(torch.get_num_threads())
    with TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch) / "images.npy", Path(scratch) / "probabilities.npy"
        np.save(inputs, images)
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            # Else Keras reads or writes the configuration in the user's home folder.
            "KERAS_HOME": scratch,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": threads,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        # -P: a file in the current folder must not be taken for a package.
        command = [sys.executable, "-P", "-c", _PREDICT, str(file), str(inputs), str(outputs)]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"Keras on {backend} cannot run the export ({reason}); it was discarded")
        return np.load(outputs)
