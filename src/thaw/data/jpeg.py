"""JPEG files without an end marker: whole ones, as some cameras leave them, are told from truncated ones.

Pillow refuses both, except where zeros follow, as in a file that was allocated but not written to its end: it takes the
zeros for pixels, and the lower part of the image is grey.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from thaw.errors import UnreadableImage

_START, END = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_BASELINE, _SCAN, _RESTARTS, _END = (0xC0, 0xC1), 0xDA, 0xDD, 0xD9
_FILLERS = (b"", b"\x55" * 64, b"\xaa" * 64)
"""Bytes in place of what may be missing; libjpeg itself puts zeros there."""


def missing_end(data: bytes, max_pixels: int) -> bytes:
    """What to append to a file before it is decoded.

    Args:
        data: Content of a file of any format.
        max_pixels: Larger images are not examined.

    Returns:
        The end marker for a JPEG that lacks it and has all its pixels, nothing for any other file.

    Raises:
        UnreadableImage: A JPEG without an end marker is truncated. So is one with several scans or restart intervals
            taken to be, because whole ones of these could be missing.
    """
    # Zeros instead of a part that was never written are no pixels; compressed pixels end with two zeros at most.
    content = data.rstrip(b"\0") if data.endswith(b"\0\0\0") else data
    if not data.startswith(_START) or content.endswith(END):
        return b""
    markers = _markers(data)
    if _END in markers:
        return b""
    may_be_whole = markers.count(_SCAN) == 1 and _RESTARTS not in markers and set(_BASELINE) & set(markers)
    if not may_be_whole or not _is_whole(content, max_pixels):
        raise UnreadableImage("a truncated JPEG: pixels are missing at its end; copy it again")
    return END


def _markers(data: bytes) -> list[int]:
    """The markers of the first image in a file."""
    markers: list[int] = []
    position = len(_START)
    while (not markers or markers[-1] != _END) and (match := _MARKER.search(data, position)):
        markers.append(data[match.end() - 1])
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2])
    return markers


def _is_whole(data: bytes, max_pixels: int) -> bool:
    """Whether no pixel is missing: such a pixel would be decoded from whatever follows the data."""
    if data.endswith(b"\xff"):
        data += b"\0"
    decoded = []
    for filler in _FILLERS:
        with Image.open(io.BytesIO(data + filler + END), formats=["JPEG"]) as image:
            # With fewer channels in its only scan, the file lacks the scans of the others.
            if image.width * image.height > max_pixels or _channels_in_scan(data) != len(image.getbands()):
                return False
            decoded.append(np.asarray(image))
    return all(np.array_equal(decoded[0], other) for other in decoded[1:])


def _channels_in_scan(data: bytes) -> int:
    return data[data.rfind(bytes((0xFF, _SCAN))) + 4]
