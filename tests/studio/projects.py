"""Images that exist only as rows, for tests of what is said about them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

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
