"""The certificate: a written export gives the probabilities that Thaw gives, from the bytes of image files on.

The images are the bundle's golden ones, and made ones of every awkward shape. Each is decoded by Thaw at its full size
and fed to the export; the same bytes go through Thaw's own decoding, resizing and classifier.

Thaw decodes a JPEG that is over four times larger than the network needs at a half, a quarter or an eighth of its size,
which is quicker and differs a little. An export is fed the full size, and is compared with Thaw at the full size.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.classifier.classifier import Classifier
from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.errors import ExportError
from thaw.export.target import Infer
from thaw.features.engines import REFERENCE
from thaw.prediction.predictor import Predictor

TOLERANCE = 1e-3
"""The most by which a probability of an export may differ."""


@dataclass(frozen=True)
class Case:
    """One image (H, W, 3) uint8 at full size, and the probabilities (classes,) that Thaw gives for its bytes."""

    name: str
    image: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class Certificate:
    """On how many images an export was compared, and the largest difference of a probability."""

    images: int
    gap: float


class _FullSize(PixelSpec):
    """A geometry that leaves images as large as they are."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size itself."""
        return width, height


def certify(run: Infer, cases: Sequence[Case]) -> Certificate:
    """Run every case, those of one size as one batch; raises `ExportError` for the first that differs too much."""
    worst = 0.0
    by_shape = sorted(cases, key=lambda case: case.image.shape)
    for _, group in groupby(by_shape, key=lambda case: case.image.shape):
        batch = list(group)
        given = run(np.stack([case.image for case in batch]))
        if given.shape != (len(batch), len(batch[0].expected)) or given.dtype != np.float32:
            raise ExportError(f"the export gives {given.dtype} of shape {given.shape}; it is not kept")
        for case, row in zip(batch, given, strict=True):
            gap = float(np.abs(row - case.expected).max())
            if not gap <= TOLERANCE:
                raise ExportError(
                    f"{case.name}: the export gives a probability that differs by {gap:.2g} from Thaw's, "
                    f"more than {TOLERANCE:g}; it is not kept"
                )
            worst = max(worst, gap)
    return Certificate(len(cases), worst)


def cases_of(classifier: Classifier, bundle: Path) -> list[Case]:
    """What to compare on: the bundle's golden images, where it has any, and made ones."""
    spec = classifier.backbone.facts.pixels
    predictor, cases = Predictor(classifier, REFERENCE, classifier.device), []
    for name, data in (*_golden(bundle), *_made(spec.size)):
        image = whole_image(data, classifier)
        seen = spec.crop(decode(data, classifier.decode, spec, reduce_jpeg=False).pixels)
        cases.append(Case(name, image, predictor.probabilities(np.stack([seen]))[0]))
    return cases


def whole_image(data: bytes, classifier: Classifier) -> np.ndarray:
    """What an export must be fed for a file: (H, W, 3) uint8 at full size, decoded as the classifier decodes.

    Raises `UnreadableImage` with the reason.
    """
    spec = classifier.backbone.facts.pixels
    full_size = _FullSize(spec.size, spec.crop_pct, spec.crop_mode, spec.interpolation)
    return decode(data, classifier.decode, full_size, reduce_jpeg=False).pixels


def _golden(bundle: Path) -> Iterator[tuple[str, bytes]]:
    folder = bundle / "golden"
    record = folder / "golden.json"
    entries = json.loads(record.read_bytes()) if record.is_file() else []
    for entry in entries:
        yield str(folder / entry["file"]), (folder / entry["file"]).read_bytes()


def _made(size: int) -> Iterator[tuple[str, bytes]]:
    """Images as PNG, always the same: soft shapes and grain, in sizes around the one that the network sees.

    As large, much smaller, flat, narrow, tall, one pixel, and two of a size, which make a batch.
    """
    generator = np.random.default_rng(0)
    shapes = ((size, size), (size // 2, size // 3), (size + 7, 3 * size), (5 * size, size + 1), (9, 1), (1, 1))
    for height, width in (*shapes, (2 * size + 1, 2 * size - 1), (2 * size + 1, 2 * size - 1)):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = generator.integers(-12, 13, soft.shape, dtype=np.int16)
        file = io.BytesIO()
        Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield f"a made image of {width} x {height} pixels", file.getvalue()
