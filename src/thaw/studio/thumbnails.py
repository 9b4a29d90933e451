"""Images as JPEGs for the browser: small ones, kept on disk by content, and large ones, made each time.

The bytes of a file are never sent as they are: whatever is in it, the browser gets a JPEG that was made here.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.errors import WriteError
from thaw.recipe import DecodeSettings
from thaw.studio.images import Images
from thaw.temporary import temporary

SMALL, LARGE = 192, 1280
"""Longer side in pixels."""

_QUALITY = {SMALL: 80, LARGE: 90}
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"


class Thumbnails:
    """Small and large JPEGs of the images of a project; thread-safe."""

    def __init__(self, images: Images, folder: Path, settings: DecodeSettings) -> None:
        self._images = images
        self._folder = folder
        self._settings = settings

    def small(self, row: int) -> bytes:
        """The thumbnail of a row; raises `UnreadableImage`."""
        digest = self._images.digests[row]
        file = self._folder / digest[:2] / f"{digest}.jpg"
        with suppress(OSError):
            kept = file.read_bytes()
            # It is not flushed to disk when it is written, so that it may be torn.
            if kept.startswith(_BEGIN) and kept.endswith(_END):
                return kept
        content = self._made(row, SMALL)
        # On a full disk it is made again each time.
        with suppress(OSError, WriteError):
            # Not its parents: a project that was removed does not come back.
            self._folder.mkdir(exist_ok=True)
            file.parent.mkdir(exist_ok=True)
            with temporary(file, lambda path: path.touch(exist_ok=False)) as path:
                path.write_bytes(content)
                path.replace(file)
        return content

    def large(self, row: int) -> bytes:
        """A row in full view; raises `UnreadableImage`."""
        return self._made(row, LARGE)

    def _made(self, row: int, side: int) -> bytes:
        spec = PixelSpec(side, 1.0, "border", "bicubic")
        # The page would show another one, and the folder keep it, as the image that was there before.
        return as_jpeg(decode(self._images.read(row), self._settings, spec).pixels, _QUALITY[side])


def as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """An image (H, W, 3) uint8 as the bytes of a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
