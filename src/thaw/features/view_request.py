"""Which images are seen, and how: their views, rendered batch by batch ahead of whoever reads them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from thaw.cores import worker_count
from thaw.data.augment import Augmentation, ViewRenderer
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.device import CPU, to_device
from thaw.features.device_views import device_pixels

MAX_RENDERERS = 4
"""Threads that render views: more of them wait for Python's global lock. On 16 cores at 224 px, views/s of 1, 4 and 16
threads: 3,600, 3,200, 2,700; without threads of OpenCV's own 1,300, 3,600, 2,500."""


@dataclass(frozen=True)
class ViewDescription:
    """What identifies views, without their pixels, which need not exist any more.

    pixels: key of the pixel store. spec: its geometry. rows: (N,). numbers: of the views of each row.
    """

    pixels: str
    spec: PixelSpec
    rows: np.ndarray
    numbers: range
    augmentation: Augmentation
    seed: int


@dataclass(frozen=True)
class ViewRequest:
    """Which images are seen, and how: `views` views of each of `rows` (N,), drawn from `seed`, the plain one first.

    first_view: where views start to be counted; 1 leaves out the plain one.
    """

    pixels: PixelStore
    rows: np.ndarray
    views: int
    augmentation: Augmentation
    seed: int
    first_view: int = 0

    @property
    def numbers(self) -> range:
        """The numbers of the views."""
        return range(self.first_view, self.first_view + self.views)

    @property
    def description(self) -> ViewDescription:
        """What identifies the views."""
        return ViewDescription(self.pixels.key, self.pixels.spec, self.rows, self.numbers, self.augmentation, self.seed)

    def view(self, index: int) -> ViewRequest:
        """The same request for one of its views."""
        return replace(self, views=1, first_view=self.numbers[index])

    def render(self, items: Sequence[tuple[int, int]], device: torch.device = CPU) -> Tensor:
        """Views (N, S, S, 3) uint8 of (row, view) pairs on a device: drawn there if its memory holds the images."""
        if resident := device_pixels(self.pixels, device):
            return resident.render(items, self.augmentation, self.seed)
        size = self.pixels.spec.size
        out = np.empty((len(items), size, size, 3), dtype=np.uint8)
        renderer = ViewRenderer(self.pixels.spec, self.augmentation, self.seed)
        renderer.render(self.pixels.read, items, out, min(worker_count(), MAX_RENDERERS))
        return to_device(out, device)

    def batches(self, size: int, device: torch.device = CPU) -> Generator[Tensor]:
        """Every view of every row, row by row, in batches of `size`, as `render` gives them, one ahead in a thread."""
        items = ((int(row), view) for row in self.rows for view in self.numbers)
        chunks = iter(lambda: list(islice(items, size)), [])
        with ThreadPoolExecutor(max_workers=1) as ahead:
            following = None
            for chunk in chunks:
                current, following = following, ahead.submit(self.render, chunk, device)
                if current is not None:
                    yield current.result()
            if following is not None:
                yield following.result()
