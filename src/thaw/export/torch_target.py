"""One .pt2 file: an `ExportedProgram` that PyTorch loads without Thaw and without timm."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from thaw.export.deployment import Deployment
from thaw.export.target import Infer

FACTS = "thaw.json"
"""The extra file inside the .pt2 that holds the facts."""


def write(deployment: Deployment, file: Path) -> None:
    """Write the .pt2 file."""
    facts = json.dumps(dict(deployment.facts), indent=2, ensure_ascii=False)
    with warnings.catch_warnings():
        # PyTorch warns of weights that share storage, which it writes as they are.
        warnings.simplefilter("ignore")
        torch.export.save(deployment.program, file, extra_files={FACTS: facts})


def load(file: Path) -> Infer:
    """Run a written file on the CPU."""
    with warnings.catch_warnings():
        # PyTorch warns of its own parts that it will replace.
        warnings.simplefilter("ignore")
        module = torch.export.load(file).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run
