"""Small pictures inside a page: JPEG as data addresses, so that one file holds everything."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

QUALITY = 78


def embedded(pixels: np.ndarray, side: int) -> str:
    """An image (H, W, 3) uint8, its long side shrunk to `side` pixels, as an address for `src`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
