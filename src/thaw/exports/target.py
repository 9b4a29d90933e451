"""What every export target provides, and the check that its packages are installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.errors import ExportError
from thaw.exports.deployment import Deployment
from thaw.exports.labelled_files import LabelledFiles

Infer = Callable[[np.ndarray], np.ndarray]
"""Images (N, H, W, 3) uint8 to probabilities (N, classes) float32, computed by the engine of a target."""

Write = Callable[[Deployment, Path, str], None]
"""`write(deployment, place, name)` writes the new file or folder `place`; `name` is the name of the model there."""

Package = Callable[[Deployment, Path, Path, str], None]
"""`package(deployment, graph, place, name)` does the same with the graph in an existing file."""

Quantise = Callable[[Path, Path, Classifier, LabelledFiles], int]
"""`quantise(fp32_graph, int8_graph, classifier, images)` writes a graph in int8, calibrated on some images; returns how
many of them could be read."""

TOLERANCE = 1e-3
"""Largest accepted difference between a probability of an export and Thaw's."""

MODEL_VERSION = "1"
"""Folder name of the first version of a model in the model repository of a server."""

_EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "keras": ("keras", "h5py"),
    "litert": ("litert_torch", "ai_edge_litert"),
}
"""The packages that each extra of Thaw installs for its targets."""


@dataclass(frozen=True)
class Int8:
    """How a format is quantised: a graph is written in fp32 and in int8, and each is packaged as the format wants it.

    Attributes:
        write_graph: Writes the graph in fp32.
        quantise: Writes it in int8.
        package: Exports a graph.
        packages: Packages that quantising needs besides those of the target.
    """

    write_graph: Write
    quantise: Quantise
    package: Package
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One format that a classifier can be exported to.

    Attributes:
        suffix: Suffix of the exported file; empty for a folder.
        packages: Packages that writing and certifying need.
        write: Exports the deployment.
        load: Loads an export into its engine, on the CPU in fp32.
        likely_cause: Why a probability would differ by more than `tolerance` from Thaw's, and what to do.
        hint: One sentence for whoever deploys the export.
        int8: How it is quantised; `None` where it cannot be.
        linux_only: What to use instead on other systems; empty where the packages exist for every system.
        resizes: Whether the export takes images of any size and resizes them; else it takes them at the model's size.
        supports_branches: Whether the engine computes an `If` node correctly.
        tolerance: Largest accepted difference of a probability, with the same label where it is above `TOLERANCE`.
        runs_int8: Whether it takes a network that was in int8 before its head was trained.
    """

    suffix: str
    packages: tuple[str, ...]
    write: Write
    load: Callable[[Path], Infer]
    likely_cause: str
    hint: str
    int8: Int8 | None = None
    linux_only: str = ""
    resizes: bool = True
    supports_branches: bool = True
    tolerance: float = TOLERANCE
    runs_int8: bool = True


def require_system(to: str, target: Target) -> None:
    """Raise `ExportError` where the packages of a target do not exist for this system."""
    if target.linux_only and sys.platform != "linux":
        needed = " and ".join(target.packages)
        raise ExportError(f"export --to {to}: {needed} exist for Linux only; {target.linux_only}")


def label_lines(classes: Sequence[str], file: str) -> str:
    """The text of `file`, which lists one class per line.

    Raises:
        ExportError: A class has a line break, after which readers would misname classes.
    """
    for label in classes:
        if label.splitlines() != [label]:
            raise ExportError(f"{label!r} has a line break, but {file} has a line per class; train with another name")
    return "".join(f"{label}\n" for label in classes)


def require_packages(packages: tuple[str, ...]) -> None:
    """Raise `ExportError` for packages that are not installed, with the command that installs them."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        extra = next((extra for extra, names in _EXTRAS.items() if set(missing) & set(names)), None)
        install = f'"thaw-vision[{extra}]"' if extra else " ".join(missing)
        raise ExportError(f"this export needs {' and '.join(missing)}: pip install {install}")
