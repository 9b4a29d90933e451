"""Exports a bundle: trace the model, write it next to its destination, certify it there, and only then rename it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from thaw import atomic
from thaw.bundle import certified_bundle
from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.errors import ExportError
from thaw.exports import (
    keras_target,
    litert_target,
    onnx_target,
    openvino_target,
    torch_target,
    triton_target,
)
from thaw.exports.certificate import INT8_TOLERANCE, Case, Certificate, certify, reference_cases
from thaw.exports.deployment import Deployment, deployment_at_size, deployment_of
from thaw.exports.int8_cost import Quantisation, check_accuracy_drop, measure_quality
from thaw.exports.labelled_files import split_for_calibration
from thaw.exports.onnx_int8 import quantise
from thaw.exports.target import Infer, Int8, Package, Target, require_packages, require_system
from thaw.marker import mark
from thaw.writing import check_new


def _through_onnx(package: Package) -> Int8:
    return Int8(onnx_target.write, quantise, package, packages=("onnxruntime",))


_OF_ONNX_RUNTIME = (
    "an operation that this version of ONNX Runtime computes in another way; use --to torch, or another one"
)

TARGETS = {
    "onnx": Target(
        suffix=".onnx",
        packages=("onnx", "onnxscript", "onnxruntime"),
        write=onnx_target.write,
        load=onnx_target.load,
        likely_cause=_OF_ONNX_RUNTIME,
        hint="any ONNX Runtime since 1.17 runs it",
        int8=_through_onnx(onnx_target.package),
    ),
    "openvino": Target(
        suffix="",
        packages=("onnx", "onnxscript", "openvino"),
        write=openvino_target.write,
        load=openvino_target.load,
        likely_cause=(
            "resized pixels that differ by one level, because OpenVINO's CPU plugin has no float64; use --to onnx, "
            "whose pixels are Thaw's"
        ),
        hint="set INFERENCE_PRECISION_HINT to f32: a CPU with bfloat16 uses it by default, and probabilities differ",
        # OpenVINO 2026.4 returns a wrong first result after an `If` with dynamic image sizes.
        supports_branches=False,
        # The starter, trained on images of 64 pixels: one level in a few pixels, and 0.0016 in the probabilities.
        tolerance=0.01,
        int8=_through_onnx(openvino_target.package),
    ),
    "torch": Target(
        suffix=".pt2",
        packages=(),
        write=torch_target.write,
        load=torch_target.load,
        likely_cause="an operation that torch.export changes; use --to onnx, or another version of PyTorch",
        hint="torch.export.load reads it, without Thaw and timm",
    ),
    "keras": Target(
        suffix=".keras",
        packages=("keras", "h5py"),
        write=keras_target.write,
        load=keras_target.load,
        likely_cause="a layer that this version of Keras computes in another way; use --to onnx, or another version",
        hint="keras.saving.load_model opens it; it is a zip file, in which thaw.json names the classes in their order",
        resizes=False,
        runs_int8=False,
    ),
    "triton": Target(
        suffix="",
        packages=("onnx", "onnxscript", "onnxruntime"),
        write=triton_target.write,
        load=triton_target.load,
        likely_cause=_OF_ONNX_RUNTIME,
        hint="the parent folder is the model repository",
        int8=_through_onnx(triton_target.package),
    ),
    "litert": Target(
        suffix=".tflite",
        packages=("litert_torch", "ai_edge_litert"),
        write=litert_target.write,
        load=litert_target.load,
        likely_cause="an operation that litert-torch converts into another one; use --to onnx, or another version",
        int8=Int8(litert_target.write_graph, litert_target.quantise, litert_target.package),
        hint="it takes one image at the model's size: `unzip -p FILE thaw.json` tells how to resize",
        linux_only="use --to onnx, or --to keras and TensorFlow's converter",
        resizes=False,
        runs_int8=False,
    ),
}
"""The export formats. A new one is one entry here and one module with these functions."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        path: The file or folder.
        size: Its size in bytes.
        certificate: How closely it reproduces Thaw; for int8, that of the fp32 graph it was quantised from.
        hint: One sentence for whoever deploys it.
        quantisation: What int8 cost; `None` for fp32.
        unreadable: Why a labelled image cannot be read, which neither calibrated nor tested int8.
        decision: How labels follow from the probabilities, in words; empty for the default decision.
    """

    path: Path
    size: int
    certificate: Certificate
    hint: str
    quantisation: Quantisation | None = None
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    decision: str = ""


def export_bundle(bundle: Path, to: str, out: Path) -> Exported:
    """Export a bundle in fp32.

    The exported model takes images (N, H, W, 3) uint8 RGB of any H and W, decoded as `thaw.data.decode` documents
    (upright, alpha over white) and at full size, and returns probabilities (N, classes) float32 in class order. One for
    keras or litert takes images that are already resized and cropped to the model's size, litert one at a time.

    Args:
        bundle: Folder of the bundle.
        to: onnx, openvino, torch, keras, litert or triton.
        out: The file or folder to write; it must not exist.

    Raises:
        ExportError: A package is missing, or a probability differs from Thaw's by more than 1e-3 (openvino 0.01,
            with the same label; 0.3 where the network is in int8). Nothing is left behind.
        WriteError: `out` exists or cannot be written.
    """
    target = _target(to, out)
    classifier = certified_bundle(bundle)
    if classifier.backbone.facts.int8 and not target.runs_int8:
        supported = ", ".join(name for name, item in TARGETS.items() if item.runs_int8)
        raise ExportError(f"export --to {to}: this classifier was trained on weights in int8; export to {supported}")
    require_packages(target.packages)
    # Before tracing, which shares the weights: a change to them on the way must be detected.
    cases = _cases(target, classifier, bundle)
    deployment = _deployment(target, classifier, bundle)
    with _destination(target, out) as place:
        target.write(deployment, place, out.name)
        certificate = _certified(target, target.load(place), cases, classifier)
    decision = classifier.decision.describe(classifier.task)
    return Exported(out, _size(out), certificate, target.hint, decision=decision)


def export_int8(bundle: Path, to: str, out: Path, images: Path, max_drop: float = 0.5) -> Exported:
    """Export a bundle in int8.

    Args:
        bundle: Folder of the bundle.
        to: onnx, openvino, triton or litert.
        out: The file or folder to write; it must not exist.
        images: Labelled data set of at least 30 images: a third of them, at most 100, calibrates; the others measure
            accuracy.
        max_drop: Largest accepted drop in accuracy, in percentage points.

    Raises:
        ExportError: As in `export_bundle`, or accuracy drops by more than `max_drop` points. Nothing is left behind.
    """
    target = _target(to, out)
    int8 = target.int8
    if int8 is None:
        supported = ", ".join(name for name, item in TARGETS.items() if item.int8)
        raise ExportError(f"export --to {to} --int8: int8 is for {supported}")
    require_packages(tuple(dict.fromkeys((*target.packages, *int8.packages))))
    classifier = certified_bundle(bundle)
    if classifier.backbone.facts.int8:
        raise ExportError("export --int8: this classifier was trained on weights in int8; omit --int8")
    dataset = Dataset.open(images, classifier.task, classifier.classes)
    calibration, test = split_for_calibration(classifier, dataset)
    deployment = _deployment(target, classifier, bundle)
    with TemporaryDirectory(ignore_cleanup_errors=True) as scratch, _destination(target, out) as place:
        fp32_graph, int8_graph, fp32_export = (Path(scratch) / name for name in ("fp32", "int8", "fp32-export"))
        int8.write_graph(deployment, fp32_graph, out.name)
        int8.package(deployment, fp32_graph, fp32_export, out.name)
        infer_fp32 = target.load(fp32_export)
        certificate = _certified(target, infer_fp32, _cases(target, classifier, bundle), classifier)
        before = measure_quality(infer_fp32, _size(fp32_export), classifier, test, not target.resizes)
        # OpenVINO reads the file as long as the model lives, and Windows removes no file that is being read.
        del infer_fp32
        calibrated = int8.quantise(fp32_graph, int8_graph, classifier, calibration)
        int8.package(deployment, int8_graph, place, out.name)
        after = measure_quality(target.load(place), _size(place), classifier, test, not target.resizes)
        quantisation = Quantisation(before, after, calibrated)
        check_accuracy_drop(quantisation, max_drop)
    decision = classifier.decision.describe(classifier.task)
    unreadable = {**calibration.unreadable, **test.unreadable}
    return Exported(out, after.size, certificate, target.hint, quantisation, unreadable, decision)


def _target(to: str, out: Path) -> Target:
    """The target called `to`, if it can be written to `out`; raises `ExportError` or `WriteError`."""
    if to not in TARGETS:
        raise ExportError(f"export --to {to}: no such target; known are {', '.join(TARGETS)}")
    target = TARGETS[to]
    require_system(to, target)
    if target.suffix and out.suffix != target.suffix:
        raise ExportError(f"{out}: an export to {to} is one file; give a name that ends in {target.suffix}")
    if not target.suffix and not _MODEL_NAME.fullmatch(out.name):
        raise ExportError(f"{out}: servers accept only letters, digits, - . and _ in the name of a model; rename it")
    check_new(out)
    return target


def _cases(target: Target, classifier: Classifier, bundle: Path) -> list[Case]:
    return reference_cases(classifier, bundle, at_model_size=not target.resizes)


def _certified(target: Target, infer: Infer, cases: list[Case], classifier: Classifier) -> Certificate:
    """Raises `ExportError` where the export differs too much from Thaw."""
    if classifier.backbone.facts.int8:
        return certify(infer, cases, INT8_TOLERANCE, likely_cause=target.likely_cause)

    def labels(probabilities: np.ndarray) -> np.ndarray:
        return classifier.decision.labels(probabilities, classifier.task)

    return certify(infer, cases, target.tolerance, labels, target.likely_cause)


def _deployment(target: Target, classifier: Classifier, bundle: Path) -> Deployment:
    if target.resizes:
        return deployment_of(classifier, bundle, target.supports_branches)
    return deployment_at_size(classifier, bundle)


@contextmanager
def _destination(target: Target, out: Path) -> Iterator[Path]:
    if target.suffix:
        with atomic.new_file(out) as file:
            yield file
    else:
        with atomic.new_folder(out) as folder:
            yield folder
            mark(folder)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
