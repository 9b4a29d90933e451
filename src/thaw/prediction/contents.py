"""What image files contain, to be sent to another machine: their bytes, or their pixels where these are fewer.

A photo of 12 megapixels is 5 MB as a JPEG file and 0.15 MB as the pixels that a network of 224 px sees. All contents
together are one array and plain values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from thaw.cores import worker_count
from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.data.image_file import read_image_file
from thaw.errors import UnreadableImage
from thaw.prediction.predict import Content
from thaw.recipe import DecodeSettings

_FILE, _PIXELS, _REASON = "file", "pixels", "reason"


def pack(files: Sequence[Path], settings: DecodeSettings, spec: PixelSpec) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """The contents of files for a network that sees pixels of a spec; at most one file per core is read at a time.

    Returns:
        All bytes one after another, (N,) uint8, and of each content what it is and its length in bytes.
    """
    data, parts = bytearray(), []
    with ThreadPoolExecutor(worker_count()) as pool:
        for kind, content in pool.map(partial(_part, settings=settings, spec=spec), files):
            data += content
            parts.append((kind, len(content)))
    return np.frombuffer(data, np.uint8), parts


def unpack(data: np.ndarray, parts: Sequence[tuple[str, int]], size: int) -> Iterator[Content]:
    """The contents that were packed, for pixels (size, size, 3)."""
    start = 0
    for kind, length in parts:
        content = data[start : start + length]
        start += length
        if kind == _PIXELS:
            yield content.reshape(size, size, 3)
        elif kind == _FILE:
            yield content.tobytes()
        else:
            yield UnreadableImage(content.tobytes().decode(errors="surrogatepass"))


def _part(file: Path, settings: DecodeSettings, spec: PixelSpec) -> tuple[str, bytes]:
    try:
        data = read_image_file(file)
        if len(data) <= spec.size**2 * 3:
            return _FILE, data
        return _PIXELS, spec.crop(decode(data, settings, spec).pixels).tobytes()
    except UnreadableImage as error:
        return _REASON, str(error).encode(errors="surrogatepass")
