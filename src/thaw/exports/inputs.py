"""The input of an export for an image file, at full size or at the model's."""

from __future__ import annotations

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec


class _FullSize(PixelSpec):
    """A geometry that does not resize."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size itself."""
        return width, height


def decode_full_size(data: bytes, classifier: Classifier) -> np.ndarray:
    """The input of an export for an image file: (H, W, 3) uint8 at full size, decoded as the classifier decodes.

    Raises:
        UnreadableImage: The file cannot be decoded.
    """
    spec = classifier.backbone.facts.pixels
    full_size = _FullSize(spec.size, spec.crop_pct, spec.crop_mode, spec.interpolation)
    return decode(data, classifier.decode, full_size, reduce_jpeg=False).pixels


def decode_at_model_size(data: bytes, classifier: Classifier) -> np.ndarray:
    """The input of an export that does not resize: (S, S, 3) uint8, resized and cropped.

    Raises:
        UnreadableImage: The file cannot be decoded.
    """
    spec = classifier.backbone.facts.pixels
    return spec.crop(decode(data, classifier.decode, spec, reduce_jpeg=False).pixels)
