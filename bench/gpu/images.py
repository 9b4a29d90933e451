"""Synthetic images for timings: JPEG files of a few colours and noise, one pattern per class, written by all cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from bench.gpu.setup import Setup
from bench.gpu.table import Row, speed
from thaw.cores import worker_count

CLASSES = ("bolt", "crack", "dent", "gear", "plate")
_CELLS = 7


def write_images(folder: Path, images: int, side: int) -> None:
    """Write `images` files `folder`/CLASS/NNNNN.jpg of side x side pixels, in equal numbers of each class."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    with ThreadPoolExecutor(worker_count()) as pool:
        for done in [pool.submit(_write, folder, number, side) for number in range(images)]:
            done.result()


def _write(folder: Path, number: int, side: int) -> None:
    """A coarse grid of random colours; one row of it is that of the class. Noise makes the file as large as a photo."""
    draws = np.random.default_rng(number)
    kind = number % len(CLASSES)
    grid = draws.integers(0, 256, (_CELLS, _CELLS, 3), dtype=np.uint8)
    grid[kind] = np.random.default_rng((1, kind)).integers(0, 256, (_CELLS, 3), dtype=np.uint8)
    pixels = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    noise = np.asarray(draws.integers(0, 24, pixels.shape, dtype=np.uint8))
    noisy = cv2.add(pixels, noise)
    content = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    (folder / CLASSES[kind] / f"{number:05d}.jpg").write_bytes(content.tobytes())


def write(setup: Setup) -> Iterator[Row]:
    """Both data sets."""
    sizes, started = setup.sizes, perf_counter()
    side = round(sizes.side * 1.15)
    write_images(setup.few, sizes.few, side)
    write_images(setup.images, sizes.images, side)
    written = sizes.few + sizes.images
    yield speed(f"synthetic JPEG files of {side} px written", written / (perf_counter() - started))
