"""Images of grey noise in two classes, of which one has white stripes in some of its columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.data.dataset import Dataset

HEIGHT = 64


def at_the_ends(width: int) -> tuple[slice, slice]:
    """The columns that a centre crop leaves out of elongated images."""
    return slice(0, width // 6), slice(width - width // 6, width)


def striped(folder: Path, width: int, columns: Sequence[slice], images: int = 45) -> Dataset:
    """A folder with so many images of each class, `plain` and `striped`."""
    rng = np.random.default_rng(0)
    for name in ("plain", "striped"):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(80, 120, (HEIGHT, width, 3), dtype=np.uint8)
            for part in columns if name == "striped" else ():
                pixels[::6, part] = 250
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return Dataset.open(folder)
