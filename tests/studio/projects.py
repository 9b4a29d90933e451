"""Images that exist only as rows, for tests of what is said about them."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.data.manifest import Manifest, new_table
from thaw.studio.images import Images


def rows(
    number: int, labels: Sequence[str | None] = (), contents: Sequence[str] = (), paths: Sequence[str] = ()
) -> Images:
    """A number of images whose content is, unless given, their path."""
    paths = paths or [f"image{row}.png" for row in range(number)]
    labels = labels or [None] * number
    digests = [hashlib.sha256(content.encode()).hexdigest() for content in contents or paths]
    table = new_table(paths, [[label] if label else [] for label in labels])
    classes = tuple(sorted({label for label in labels if label}))
    return Images(Manifest(table, classes, "multiclass", Path("/nowhere")), tuple(digests))


def png(number: int, side: int = 16) -> bytes:
    """The bytes of an image of noise, another one for each number."""
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()
