"""Images on a page: JPEGs embedded as data URLs, so that one file holds everything."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

JPEG_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """An image with its captions.

    Attributes:
        name: Path of the image; empty where the page names it elsewhere.
        data_url: Address for `src`; empty where the image cannot be shown.
        caption: Main line below the image.
        detail: Second line below the image.
        reason: Why the image cannot be shown.
    """

    name: str
    data_url: str
    caption: str
    detail: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Gallery:
    """Some of `total` images under one heading.

    Attributes:
        is_paired: Thumbnails form pairs, and `total` counts pairs.
    """

    heading: str
    description: str
    thumbnails: tuple[Thumbnail, ...]
    total: int
    is_paired: bool = False

    @property
    def shown(self) -> int:
        """How many of `total` are shown."""
        return len(self.thumbnails) // (2 if self.is_paired else 1)


def data_url(pixels: np.ndarray, side: int) -> str:
    """Encode an image (H, W, 3) uint8 as a data URL, its longer side scaled down to `side` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
