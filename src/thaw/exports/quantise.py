"""Int8 exports: quantised with statistics of some labelled images, and kept only if accurate on the others.

Convolutions and the linear layers of the head run in int8, with one scale per channel of the weights and measured
ranges of the activations (static post-training quantisation of ONNX Runtime, as QDQ nodes, which OpenVINO reads too).
Resizing stays exact. The first convolution and depthwise convolutions stay in float32: they take little time and lose
the most. On 200 images of surface defects the accuracy of Thaw's starter (MobileNetV2) fell from 91 % to 42 % with all
of them in int8, and to 83 % without these.

NNCF would refine this, but sends usage statistics over the network.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.image_file import read_image_file
from thaw.errors import ExportError, UnreadableImage
from thaw.evaluation.evaluate import targets_for
from thaw.exports.certificate import decode_full_size
from thaw.exports.deployment import INPUT
from thaw.exports.target import Infer
from thaw.formats import count, percent
from thaw.metrics import measure

MAX_CALIBRATION_IMAGES = 100
"""Images that calibrate at most; never more than a third of them, so that enough are left to measure accuracy."""
MIN_IMAGES = 30
"""Labelled images that int8 needs."""


@dataclass(frozen=True)
class LabelledFiles:
    """Image files, and their targets (N,) or (N, classes) in the classifier's order."""

    files: tuple[Path, ...]
    targets: np.ndarray


@dataclass(frozen=True)
class Quality:
    """Size of an export in bytes, its median latency for one image in milliseconds, and its accuracy in 0..1."""

    size: int
    latency_ms: float
    accuracy: float


@dataclass(frozen=True)
class Quantisation:
    """What int8 cost.

    Attributes:
        before: The fp32 export.
        after: The int8 export.
        calibration_images: Images that the ranges of activations were measured on.
        test_images: Other images, on which both exports were compared.
    """

    before: Quality
    after: Quality
    calibration_images: int
    test_images: int

    @property
    def accuracy_drop(self) -> float:
        """Lost accuracy in percentage points."""
        return 100.0 * (self.before.accuracy - self.after.accuracy)


def split_for_calibration(classifier: Classifier, dataset: Dataset) -> tuple[LabelledFiles, LabelledFiles]:
    """Images to calibrate on and other images to test on, always the same.

    Raises:
        ExportError: There are fewer than `MIN_IMAGES`.
    """
    manifest = dataset.manifest
    if len(manifest) < MIN_IMAGES:
        found = count(len(manifest), "labelled image")
        raise ExportError(
            f"{manifest.root}: {found}; int8 needs at least {MIN_IMAGES} to calibrate and measure accuracy"
        )
    targets = targets_for(classifier, manifest)
    order = np.random.default_rng(0).permutation(len(manifest))
    calibration = min(MAX_CALIBRATION_IMAGES, len(manifest) // 3)
    first, second = (
        LabelledFiles(tuple(manifest.file(int(row)) for row in rows), targets[rows])
        for rows in (order[:calibration], order[calibration:])
    )
    return first, second


def quantise(fp32_onnx: Path, int8_onnx: Path, classifier: Classifier, images: LabelledFiles) -> None:
    """Write the fp32 .onnx file in int8, calibrated on some images."""
    from thaw.exports.onnx_runtime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._images = (image for image, _ in _readable(classifier, images))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image[None]}

    disabled_level = logging.root.manager.disable
    # ONNX Runtime recommends a preparation that the exporter has already done.
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantization.quantize_static(
                fp32_onnx,
                int8_onnx,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                # Resizing contains neither, so it stays exact. The statistics of all stages are too different in scale
                # for one range.
                op_types_to_quantize=["Conv", "Gemm"] if classifier.backbone.features == "last" else ["Conv"],
                nodes_to_exclude=_sensitive_convolutions(fp32_onnx),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    finally:
        logging.disable(disabled_level)


def _sensitive_convolutions(file: Path) -> list[str]:
    """Names of the first convolution and of all grouped ones."""
    import onnx

    convolutions = [node for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    grouped = [
        node.name
        for node in convolutions
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
    return [convolutions[0].name, *grouped]


def measure_quality(infer: Infer, size: int, classifier: Classifier, images: LabelledFiles) -> Quality:
    """Run every image on its own at full size; raises `ExportError` if none can be read."""
    probabilities, rows, seconds = [], [], []
    for image, row in _readable(classifier, images):
        started = time.perf_counter()
        probabilities.append(infer(image[None])[0])
        seconds.append(time.perf_counter() - started)
        rows.append(row)
    if not rows:
        raise ExportError(f"{images.files[0].parent}: none of the {count(len(images.files), 'image')} can be read")
    accuracy = measure(np.stack(probabilities), images.targets[rows], classifier.task)["accuracy"]
    return Quality(size, 1000.0 * float(np.median(seconds)), accuracy)


def check_accuracy_drop(quantisation: Quantisation, max_drop: float) -> None:
    """Raise `ExportError` if accuracy drops by more than `max_drop` percentage points."""
    if quantisation.accuracy_drop > max_drop:
        raise ExportError(
            f"int8 lowers accuracy by {quantisation.accuracy_drop:.1f} points on "
            f"{count(quantisation.test_images, 'image')}, from {percent(quantisation.before.accuracy)} to "
            f"{percent(quantisation.after.accuracy)}, more than --max-drop {max_drop:g}; it was discarded: export "
            "without --int8"
        )


def _readable(classifier: Classifier, images: LabelledFiles) -> Iterator[tuple[np.ndarray, int]]:
    """Each readable image at full size, and its row."""
    for row, file in enumerate(images.files):
        try:
            yield decode_full_size(read_image_file(file), classifier), row
        except UnreadableImage:
            continue
