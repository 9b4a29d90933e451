"""Feature extraction: views of every image through the frozen part into the feature cache, in one pass.

Three things run at once: the next batch of views is rendered, the current one passes the frozen part, the last one is
written. All of them release Python's global lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.stages import AtCut
from thaw.cache import ATTEMPTS
from thaw.data import augment
from thaw.data.augment import Augmentation, render
from thaw.data.pixel_store import PixelStore
from thaw.device import CPU, worker_count
from thaw.errors import WriteError
from thaw.features.cache import CachedFeatures, FeatureCache, FeatureKey, FeatureWriter, bytes_of_view
from thaw.features.device_views import device_pixels
from thaw.features.encoding import CacheDtype
from thaw.features.engines import FrozenPart
from thaw.progress import OnProgress

BATCH = 64

MAX_RENDERERS = 4
"""Threads that render views: more of them wait for Python's global lock. On 16 cores at 224 px, views/s of 1, 4 and 16
threads: 3,600, 3,200, 2,700; without threads of OpenCV's own 1,300, 3,600, 2,500."""


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
    def _numbers(self) -> range:
        return range(self.first_view, self.first_view + self.views)

    def render(self, items: Sequence[tuple[int, int]], device: torch.device = CPU) -> Tensor:
        """Views (N, S, S, 3) uint8 of (row, view) pairs: on a device whose memory holds the images, else on the CPU."""
        if resident := device_pixels(self.pixels, device):
            return resident.render(items, self.augmentation, self.seed)
        size = self.pixels.spec.size
        out = np.empty((len(items), size, size, 3), dtype=np.uint8)
        workers = min(worker_count(), MAX_RENDERERS)
        render(self.pixels.read, items, self.pixels.spec, self.augmentation, self.seed, out, workers)
        return torch.from_numpy(out)

    def batches(self, size: int, device: torch.device = CPU) -> Iterator[Tensor]:
        """Every view of every row, row by row, in batches of `size`, as `render` gives them, one ahead in a thread."""
        items = ((int(row), view) for row in self.rows for view in self._numbers)
        chunks = iter(lambda: list(islice(items, size)), [])
        with ThreadPoolExecutor(max_workers=1) as ahead:
            following = None
            for chunk in chunks:
                current, following = following, ahead.submit(self.render, chunk, device)
                if current is not None:
                    yield current.result()
            if following is not None:
                yield following.result()


def extract(
    request: ViewRequest, frozen: FrozenPart, positions: Sequence[int], cache: FeatureCache, on_progress: OnProgress
) -> dict[int, CachedFeatures]:
    """Features of the requested views at each position: from the cache where they are there, else in one pass.

    Where a value is too large for the cache's dtype, all features of the pass are stored in float32.

    Args:
        request: The images and their views.
        frozen: The backbone and the engine that runs it.
        positions: Positions of the cuts.
        cache: Where features are read from and written to.
        on_progress: Called with the number of views done, and of all views.
    """
    wanted = sorted(set(positions))
    try:
        return _extract(request, frozen, wanted, cache, on_progress)
    except OverflowError:
        return _extract(request, frozen, wanted, replace(cache, dtype="float32"), on_progress)


def _extract(
    request: ViewRequest, frozen: FrozenPart, positions: Sequence[int], cache: FeatureCache, on_progress: OnProgress
) -> dict[int, CachedFeatures]:
    keys = {position: _key(request, frozen, position, cache.dtype) for position in positions}
    total = len(request.rows) * request.views
    found = _opened(cache, keys, request)
    for _ in range(ATTEMPTS):
        if absent := {position: key for position, key in keys.items() if position not in found}:
            _write(request, frozen, absent, cache, lambda done: on_progress(done, total))
            found |= _opened(cache, absent, request)
    if len(found) < len(keys):
        raise WriteError(cache.folder, "cached features are removed before they can be used; run again")
    on_progress(total, total)
    return found


def _opened(cache: FeatureCache, keys: Mapping[int, FeatureKey], request: ViewRequest) -> dict[int, CachedFeatures]:
    """The features that the cache has, by position."""
    opened = {position: cache.open(key, request.views) for position, key in keys.items()}
    return {position: features for position, features in opened.items() if features is not None}


def _write(
    request: ViewRequest,
    frozen: FrozenPart,
    keys: Mapping[int, FeatureKey],
    cache: FeatureCache,
    on_progress: Callable[[int], None],
) -> None:
    """Extract the features at the positions of some keys into the cache; those of a batch are written behind the next.

    The first batch tells how much room all of them need.
    """
    runner, batches = frozen.runner(list(keys)), request.batches(BATCH, frozen.device)
    outputs = runner.run(next(batches))
    needed = len(request.rows) * request.views * sum(bytes_of_view(at, cache.dtype) for at in outputs)
    cache.make_room(needed)
    names = (*frozen.backbone.block_names, "head")
    with ExitStack() as entries:
        writers = []
        for position, key in keys.items():
            about = {"backbone": frozen.backbone.facts.architecture, "cut": names[position]}
            writers.append(entries.enter_context(cache.writing(key, request.views, about, needed)))
        behind = entries.enter_context(ThreadPoolExecutor(max_workers=1))
        done = 0
        for following in chain(batches, (None,)):
            written = behind.submit(_append, writers, outputs)
            done += len(outputs[0].values)
            if following is not None:
                outputs = runner.run(following)
            written.result()
            on_progress(done)


def _append(writers: Sequence[FeatureWriter], outputs: Sequence[AtCut]) -> None:
    """Write what lies at each position, for one batch."""
    for writer, features in zip(writers, outputs, strict=True):
        writer.append(features)


def _key(request: ViewRequest, frozen: FrozenPart, position: int, dtype: CacheDtype) -> FeatureKey:
    facts = frozen.backbone.facts
    return FeatureKey(
        pixels=request.pixels.key,
        rows=hashlib.sha256(np.ascontiguousarray(request.rows, dtype=np.int64).tobytes()).hexdigest(),
        augmentation=repr((augment.VERSION, request.augmentation, request.pixels.spec, request.first_view)),
        seed=request.seed,
        backbone=f"{frozen.backbone.digest(position)} {facts.mean} {facts.std}",
        position=position,
        engine=frozen.label,
        dtype=dtype,
    )
