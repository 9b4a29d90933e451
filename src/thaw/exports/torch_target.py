"""Export target `torch`: one .pt2 file, an `ExportedProgram` that PyTorch loads without Thaw and timm."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import torch

from thaw import atomic
from thaw.exports.deployment import Deployment
from thaw.exports.target import Infer

METADATA_FILE = "thaw.json"
"""The extra file inside the .pt2 that holds the metadata."""


def write(deployment: Deployment, place: Path, name: str) -> None:
    """Write the .pt2 file."""
    metadata = json.dumps(dict(deployment.metadata), indent=2, ensure_ascii=False)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # PyTorch warns about weights that share storage, which it saves correctly.
        warnings.simplefilter("ignore")
        # Into memory first: PyTorch ends the process where it cannot write a file.
        torch.export.save(deployment.program, content, extra_files={METADATA_FILE: metadata})
    atomic.write_bytes(place, content.getvalue())


def load(file: Path) -> Infer:
    """Load the file into PyTorch, on the CPU."""
    with warnings.catch_warnings():
        # PyTorch warns about deprecated parts of itself.
        warnings.simplefilter("ignore")
        module = torch.export.load(file).module()

    def infer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return infer
