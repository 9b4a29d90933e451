"""What is common to the targets: how an export is run, and the packages that it takes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from thaw.errors import ExportError

Infer = Callable[[np.ndarray], np.ndarray]
"""Images (N, H, W, 3) uint8 to probabilities (N, classes) float32, by the engine of the target."""

VERSION = "1"
"""The folder of a model's first version in the repository of a server."""

_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def need(packages: tuple[str, ...]) -> None:
    """Raise `ExportError` in one sentence when a package is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if set(missing) & set(_EXTRA):
        raise ExportError(f"this export needs {' and '.join(missing)}: pip install 'thaw-vision[onnx]'")
    if missing:
        raise ExportError(f"this export needs {' and '.join(missing)}: pip install {' '.join(missing)}")
