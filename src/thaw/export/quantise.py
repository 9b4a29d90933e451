"""An export in 8-bit integers: calibrated on some labelled images, and kept only if it is right on the others.

Convolutions and the head's layers are calculated in int8 with a scale for each channel of the weights and ranges of the
activations that are measured (static post-training quantisation of ONNX Runtime, as QDQ nodes, which OpenVINO reads
too). Resizing stays exact. The first convolution and the depthwise ones stay in float32: they cost little time and
lose the most. On 200 images of surface defects the accuracy of Thaw's starter (MobileNetV2) fell from 91 % to 42 %
with all of them in int8, and to 83 % without these.

NNCF would do the same with more refinement, but reports its use over the network.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.errors import ExportError, UnreadableImage
from thaw.evaluation.evaluate import targets_for
from thaw.export.certificate import whole_image
from thaw.export.deployment import INPUT
from thaw.export.target import Infer
from thaw.metrics import measure

CALIBRATED = 100
"""Images that the ranges are measured on, at most; a third of them at most, so that the others can judge."""
LEAST = 30
"""Labelled images that it takes at least."""


@dataclass(frozen=True)
class Labelled:
    """Image files, and their targets (N,) or (N, classes) in the classifier's order."""

    files: tuple[Path, ...]
    targets: np.ndarray


@dataclass(frozen=True)
class Quality:
    """How a deployable does: its size in bytes, milliseconds for one image (median), and accuracy in 0..1."""

    size: int
    latency_ms: float
    accuracy: float


@dataclass(frozen=True)
class Quantised:
    """Before and after, on how many images the ranges were measured, and on how many others the quality."""

    before: Quality
    after: Quality
    calibrated: int
    measured: int

    @property
    def drop(self) -> float:
        """Accuracy that was lost, in points."""
        return 100.0 * (self.before.accuracy - self.after.accuracy)


def divide(classifier: Classifier, dataset: Dataset) -> tuple[Labelled, Labelled]:
    """Images to calibrate on and others to measure on, always the same; raises `ExportError` when they are too few."""
    manifest = dataset.manifest
    if len(manifest) < LEAST:
        raise ExportError(f"{manifest.root}: {len(manifest)} labelled images; int8 needs at least {LEAST} to be judged")
    targets = targets_for(classifier, manifest)
    order = np.random.default_rng(0).permutation(len(manifest))
    count = min(CALIBRATED, len(manifest) // 3)
    first, second = (
        Labelled(tuple(manifest.file(int(row)) for row in rows), targets[rows])
        for rows in (order[:count], order[count:])
    )
    return first, second


def quantise(file: Path, small: Path, classifier: Classifier, images: Labelled) -> None:
    """Write the .onnx file `file` in int8 as `small`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = (image for image, _ in _readable(classifier, images))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image[None]}

    logged = logging.root.manager.disable
    # ONNX Runtime advises a preparation that the exporter has done already.
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(
                file,
                small,
                Reader(),
                quant_format=QuantFormat.QDQ,
                # Resizing has neither of them.
                op_types_to_quantize=["Conv", "Gemm"],
                nodes_to_exclude=_delicate(file),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.disable(logged)


def _delicate(file: Path) -> list[str]:
    """Names of the first convolution and of every one with groups."""
    import onnx

    convolutions = [node for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    grouped = [
        node.name
        for node in convolutions
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
    return [convolutions[0].name, *grouped]


def judge(run: Infer, size: int, classifier: Classifier, images: Labelled) -> Quality:
    """Run every image alone, at its full size; raises `ExportError` when none can be read."""
    probabilities, rows, seconds = [], [], []
    for image, row in _readable(classifier, images):
        started = time.perf_counter()
        probabilities.append(run(image[None])[0])
        seconds.append(time.perf_counter() - started)
        rows.append(row)
    if not rows:
        raise ExportError(f"{images.files[0].parent}: none of the {len(images.files)} images can be read")
    accuracy = measure(np.stack(probabilities), images.targets[rows], classifier.task)["accuracy"]
    return Quality(size, 1000.0 * float(np.median(seconds)), accuracy)


def accept(
    before: Quality, after: Quality, calibrated: Sequence[Path], measured: Sequence[Path], max_drop: float
) -> Quantised:
    """The comparison; raises `ExportError` when accuracy falls by more than `max_drop` points."""
    result = Quantised(before, after, len(calibrated), len(measured))
    if result.drop > max_drop:
        raise ExportError(
            f"in int8 accuracy falls by {result.drop:.1f} points on {result.measured} images, from "
            f"{before.accuracy:.1%} to {after.accuracy:.1%}, more than --max-drop {max_drop:g}; "
            "it is not kept: export without --int8"
        )
    return result


def _readable(classifier: Classifier, images: Labelled) -> Iterator[tuple[np.ndarray, int]]:
    """Each image that can be read, at its full size, and its row."""
    for row, file in enumerate(images.files):
        try:
            yield whole_image(file.read_bytes(), classifier), row
        except (UnreadableImage, OSError):
            continue
