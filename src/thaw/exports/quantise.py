"""Int8 exports: quantised with statistics of some labelled images, and kept only if accurate on the others.

All convolutions run in int8, with one scale per channel of the weights and measured ranges of the activations (static
post-training quantisation of ONNX Runtime, as QDQ nodes, which OpenVINO reads too). Resizing and the head stay exact.

1. Weights are rounded so that outputs change least, and biases corrected (`thaw.exports.rounding`).
2. The range of a convolution is that after its ReLU or ReLU6: what these cut off needs none of the 256 values.
3. The last layer is corrected on the features of the int8 network (`thaw.exports.head_correction`).

Drop in accuracy in points, mean of four sets of 178 to 400 test images (insects, solar cells, waste, steel) with linear
heads; its standard error is about 0.4 for the starter and 0.3 for the others. The starter as quantised by NNCF 3.4 with
its defaults takes 35 ms in ONNX Runtime, where fp32 takes 15 ms and this 10 ms.

    steps           Thaw's starter  MobileNetV2  EfficientNet-Lite0
    1, 2, 3                    0.6          0.0                 0.3
    1, 2                       0.8          0.1                 0.3
    2, 3                       1.2          0.1                 0.1
    2                          7.7          0.1                 0.2
    none                       9.3          4.0                 0.3   (depthwise ones in float32)
    NNCF                       7.4          0.8                   -
    NNCF, 3                    1.0          0.2                   -
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.image_file import read_image_file
from thaw.errors import ExportError, UnreadableImage
from thaw.evaluation.evaluate import targets_for
from thaw.exports.certificate import decode_at_model_size, decode_full_size
from thaw.exports.deployment import INPUT
from thaw.exports.head_correction import correct_head
from thaw.exports.onnx_graph import convolutions, last_layer
from thaw.exports.rounding import round_weights, statistics_of
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
    """Write the fp32 .onnx file in int8, calibrated on some images; their labels are not used."""
    import onnx

    model = onnx.load(fp32_onnx)
    logits: list[np.ndarray] = []
    logits_name = last_layer(model).output[0]
    names = {logits_name, *(node.input[0] for node in convolutions(model))}

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for found in _activations(model, names, classifier, images):
            logits.append(found[logits_name])
            yield found

    seen = statistics_of(model, inputs())
    if not logits:
        raise ExportError(_none_readable(images))
    round_weights(model, seen)
    _insert_quantisation(model, int8_onnx, classifier, images)
    int8 = onnx.load(int8_onnx)
    features_name = last_layer(int8).input[0]
    features = [found[features_name] for found in _activations(int8, {features_name}, classifier, images)]
    correct_head(int8, np.concatenate(features), np.concatenate(logits))
    onnx.save(int8, int8_onnx)


def _insert_quantisation(model: Any, int8_onnx: Path, classifier: Classifier, images: LabelledFiles) -> None:
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
                model,
                int8_onnx,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                # An activation is quantised only where its input is, so resizing, which clips, stays exact.
                op_types_to_quantize=["Conv", "Clip", "Relu"],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    finally:
        logging.disable(disabled_level)


def _activations(
    model: Any, names: set[str], classifier: Classifier, images: LabelledFiles
) -> Iterator[dict[str, np.ndarray]]:
    """The tensors of these names, for each readable image."""
    import onnx

    from thaw.exports.onnx_runtime import onnxruntime

    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    outputs = sorted(names)
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(extended.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for image, _ in _readable(classifier, images):
        yield dict(zip(outputs, session.run(outputs, {INPUT: image[None]}), strict=True))


def measure_quality(
    infer: Infer, size: int, classifier: Classifier, images: LabelledFiles, at_model_size: bool = False
) -> Quality:
    """Run every image on its own, at full size or resized; raises `ExportError` if none can be read."""
    probabilities, rows, seconds = [], [], []
    for image, row in _readable(classifier, images, at_model_size):
        started = time.perf_counter()
        probabilities.append(infer(image[None])[0])
        seconds.append(time.perf_counter() - started)
        rows.append(row)
    if not rows:
        raise ExportError(_none_readable(images))
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


def _none_readable(images: LabelledFiles) -> str:
    return f"{images.files[0].parent}: none of the {count(len(images.files), 'image')} can be read"


def pixels_at_model_size(classifier: Classifier, images: LabelledFiles) -> np.ndarray:
    """All readable images, resized and cropped: (N, S, S, 3) uint8; raises `ExportError` if none can be read."""
    pixels = [image for image, _ in _readable(classifier, images, at_model_size=True)]
    if not pixels:
        raise ExportError(_none_readable(images))
    return np.stack(pixels)


def _readable(
    classifier: Classifier, images: LabelledFiles, at_model_size: bool = False
) -> Iterator[tuple[np.ndarray, int]]:
    """Each readable image and its row."""
    decode = decode_at_model_size if at_model_size else decode_full_size
    for row, file in enumerate(images.files):
        try:
            yield decode(read_image_file(file), classifier), row
        except UnreadableImage:
            continue
