"""From a bundle to one deployable: recorded, written beside its place, certified there, and only then renamed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from thaw import atomic
from thaw.bundle import certify as certify_bundle
from thaw.bundle import read_bundle
from thaw.data.dataset import Dataset
from thaw.errors import ExportError
from thaw.export import onnx_target, openvino_target, torch_target, triton_target
from thaw.export.certificate import Certificate, cases_of, certify
from thaw.export.deployment import Deployment, record
from thaw.export.quantise import Quantised, accept, divide, judge, quantise
from thaw.export.target import Infer, need

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Target:
    """One kind of deployable: its file name's ending, empty for a folder; what it takes; how to write and run it.

    `write` gets the place to fill and the name under which it will be known; `adopt` does the same from an .onnx file
    that is there already, and is `None` where none can be taken over. `has_branches`: whether the engine can be
    trusted with an `If`. hint: one sentence for who deploys it.
    """

    ending: str
    packages: tuple[str, ...]
    write: Callable[[Deployment, Path, str], None]
    adopt: Callable[[Deployment, Path, Path, str], None] | None
    load: Callable[[Path], Infer]
    hint: str
    has_branches: bool = True


TARGETS = {
    "onnx": Target(
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        lambda deployment, place, _: onnx_target.write(deployment, place),
        lambda _, model, place, __: onnx_target.adopt(model, place),
        onnx_target.load,
        "any ONNX Runtime since 1.17 runs it",
    ),
    "openvino": Target(
        "",
        ("onnx", "onnxscript", "openvino"),
        lambda deployment, place, _: openvino_target.write(deployment, place),
        lambda deployment, model, place, _: openvino_target.adopt(deployment, model, place),
        openvino_target.load,
        "set INFERENCE_PRECISION_HINT to f32: a CPU with bfloat16 takes that otherwise, and answers differ",
        # The first answer of OpenVINO 2026.4 after an `If` over open sizes is wrong.
        has_branches=False,
    ),
    "torch": Target(
        ".pt2",
        (),
        lambda deployment, place, _: torch_target.write(deployment, place),
        None,
        torch_target.load,
        "torch.export.load reads it, without Thaw and timm",
    ),
    "triton": Target(
        "",
        ("onnx", "onnxscript", "onnxruntime"),
        triton_target.write,
        triton_target.adopt,
        triton_target.load,
        "the folder that holds it is the model repository",
    ),
}


@dataclass(frozen=True)
class Exported:
    """A deployable on disk: where, how large in bytes, what certifies it, and a sentence for who deploys it.

    quantised: where it is in int8, what that cost; the certificate is that of the graph before, in fp32.
    """

    path: Path
    size: int
    certificate: Certificate
    hint: str
    quantised: Quantised | None = None


def export_bundle(bundle: Path, to: str, out: Path) -> Exported:
    """Write a bundle as a deployable for `to` (onnx, openvino, torch or triton) at `out`, which must not exist.

    A caller feeds it images (N, H, W, 3) uint8 RGB, any H and W, decoded as `thaw.data.decode` documents (upright,
    alpha over white) and at their full size, and gets probabilities (N, classes) float32 in class order. Raises
    `ExportError` where the export cannot be written there, a package is missing, or it does not give Thaw's own
    probabilities to 1e-3; nothing is left then.
    """
    target = _target(to, out)
    need(target.packages)
    classifier = read_bundle(bundle)
    certify_bundle(classifier, bundle)
    cases = cases_of(classifier, bundle)
    deployment = record(classifier, bundle, target.has_branches)
    building = atomic.new_file(out) if target.ending else atomic.new_folder(out)
    with building as place:
        target.write(deployment, place, out.name)
        certificate = certify(target.load(place), cases)
    return Exported(out, _size(out), certificate, target.hint)


def export_int8(bundle: Path, to: str, out: Path, images: Path, max_drop: float = 0.5) -> Exported:
    """As `export_bundle`, in 8-bit integers, for onnx, openvino or triton.

    `images` is a labelled data set of at least 30 images: a third of it, up to 100, calibrates, and the rest measures.
    Raises `ExportError` also where the accuracy falls by more than `max_drop` points; nothing is left then.
    """
    target = _target(to, out)
    if target.adopt is None:
        raise ExportError(f"export --to {to} --int8: int8 is for {', '.join(n for n, t in TARGETS.items() if t.adopt)}")
    need((*target.packages, "onnxruntime"))
    classifier = read_bundle(bundle)
    certify_bundle(classifier, bundle)
    calibration, rest = divide(classifier, Dataset.open(images, classifier.task, classifier.classes))
    deployment = record(classifier, bundle, target.has_branches)
    building = atomic.new_file(out) if target.ending else atomic.new_folder(out)
    with TemporaryDirectory() as scratch, building as place:
        plain, small, whole = (Path(scratch) / name for name in ("plain.onnx", "small.onnx", "whole"))
        onnx_target.write(deployment, plain)
        target.adopt(deployment, plain, whole, out.name)
        run = target.load(whole)
        certificate = certify(run, cases_of(classifier, bundle))
        before = judge(run, _size(whole), classifier, rest)
        quantise(plain, small, classifier, calibration)
        target.adopt(deployment, small, place, out.name)
        after = judge(target.load(place), _size(place), classifier, rest)
        quantised = accept(before, after, calibration.files, rest.files, max_drop)
    return Exported(out, after.size, certificate, target.hint, quantised)


def _target(to: str, out: Path) -> Target:
    """The target, when it can be written to `out`; raises `ExportError`."""
    if to not in TARGETS:
        raise ExportError(f"export --to {to}: there is no such target; known are {', '.join(TARGETS)}")
    target = TARGETS[to]
    if out.exists():
        raise ExportError(f"{out}: is there already; remove it or name another place with --out")
    if target.ending and out.suffix != target.ending:
        raise ExportError(f"{out}: an export to {to} is one file; give a name that ends in {target.ending}")
    if not target.ending and not _NAME.fullmatch(out.name):
        raise ExportError(f"{out}: a server takes letters, digits, - . and _ in the name of a model")
    return target


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
