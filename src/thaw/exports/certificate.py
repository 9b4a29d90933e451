"""The certificate: an export gives the same probabilities as Thaw, from the bytes of image files on.

The images are the bundle's golden images and synthetic images of unusual sizes. Each is decoded by Thaw at full size
and fed to the export; the same bytes go through Thaw's own decoding, resizing and classifier.

An export that takes images at the model's size is fed the pixels to which Thaw resizes and crops each image.

Thaw decodes a JPEG that is more than four times larger than the network needs at 1/2, 1/4 or 1/8 of its size, which is
faster and changes the pixels slightly. An export is fed the full size, and compared with Thaw at full size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.classifier.classifier import Classifier
from thaw.errors import ExportError
from thaw.exports.inputs import decode_at_model_size, decode_full_size
from thaw.exports.target import TOLERANCE, Infer
from thaw.golden import golden_of
from thaw.prediction.predictor import reference_predictor

INT8_TOLERANCE = 0.3
"""The same where the network is in int8. Engines then differ by one step in a few values of each layer, which the
layers above multiply: by up to 0.0001 in the probabilities of eight photographs, and by up to 0.08 in those of
synthetic images, which no class resembles (MobileNetV2; the starter after training on few images: 0.09 and 0.13). So
this guards against gross errors only, such as colours in another order, an image upside down, or another crop."""


@dataclass(frozen=True)
class Case:
    """One image file and the probabilities (classes,) that Thaw gives for it.

    image: (H, W, 3) uint8, at the size that the export takes.
    """

    name: str
    image: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class Certificate:
    """The number of images on which an export was compared with Thaw, and the largest difference of a probability."""

    images: int
    max_difference: float


def certify(
    infer: Infer,
    cases: Sequence[Case],
    tolerance: float = TOLERANCE,
    labels: Callable[[np.ndarray], np.ndarray] | None = None,
    likely_cause: str = "",
) -> Certificate:
    """Run every case, images of equal size as one batch; raises `ExportError` for the first that differs too much.

    Args:
        infer: The export in its engine.
        cases: Images with Thaw's probabilities.
        tolerance: Largest accepted difference of a probability.
        labels: (N, classes) labels of probabilities, which must be the same where one differs by more than `TOLERANCE`;
            `None` where they need not be.
        likely_cause: Why they would differ, and what to do, for the error.
    """
    discarded = f"it was discarded{f'; likely {likely_cause}' if likely_cause else ''}"
    largest = 0.0
    by_shape = sorted(cases, key=lambda case: case.image.shape)
    for _, group in groupby(by_shape, key=lambda case: case.image.shape):
        batch = list(group)
        outputs = infer(np.stack([case.image for case in batch]))
        if outputs.shape != (len(batch), len(batch[0].expected)) or outputs.dtype != np.float32:
            raise ExportError(f"the export returns {outputs.dtype} of shape {outputs.shape}; {discarded}")
        for case, row in zip(batch, outputs, strict=True):
            difference = float(np.abs(row - case.expected).max())
            # Written so that NaN fails.
            if not difference <= tolerance:
                raise ExportError(
                    f"{case.name}: a probability of the export differs by {difference:.2g} from Thaw's, "
                    f"more than {tolerance:g}; {discarded}"
                )
            if difference > TOLERANCE and labels and (labels(row[None]) != labels(case.expected[None])).any():
                raise ExportError(
                    f"{case.name}: the label of the export differs from Thaw's, and a probability by {difference:.2g}; "
                    f"{discarded}"
                )
            largest = max(largest, difference)
    return Certificate(len(cases), largest)


def reference_cases(classifier: Classifier, bundle: Path, at_model_size: bool = False) -> list[Case]:
    """The golden images of a bundle, if it has any, and synthetic images, with Thaw's probabilities.

    Args:
        classifier: The classifier of the bundle.
        bundle: Folder of the bundle.
        at_model_size: Whether the images are resized and cropped; else they are at full size.
    """
    spec = classifier.backbone.facts.pixels
    predictor, cases = reference_predictor(classifier), []
    golden = ((str(file), file.read_bytes()) for file in golden_of(bundle))
    for name, data in (*golden, *_synthetic_images(spec.size)):
        view = decode_at_model_size(data, classifier)
        image = view if at_model_size else decode_full_size(data, classifier)
        cases.append(Case(name, image, predictor.probabilities(np.stack([view]))[0]))
    return cases


def _synthetic_images(size: int) -> Iterator[tuple[str, bytes]]:
    """Names and PNG files of always the same images: smooth shapes with noise, in sizes around the network's input.

    As large, much smaller, wide, tall, narrow, one pixel, and two of equal size, which form a batch.
    """
    generator = np.random.default_rng(0)
    shapes = ((size, size), (size // 2, size // 3), (size + 7, 3 * size), (5 * size, size + 1), (9, 1), (1, 1))
    for height, width in (*shapes, (2 * size + 1, 2 * size - 1), (2 * size + 1, 2 * size - 1)):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noise = generator.integers(-12, 13, smooth.shape, dtype=np.int16)
        file = io.BytesIO()
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield f"synthetic image of {width} x {height} pixels", file.getvalue()
