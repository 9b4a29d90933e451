"""Look at every image once: decode, augment, run the frozen part, store what lies at each cut, in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.data.augment import Augmentation, render
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.device import worker_count
from thaw.features.runner import Runner
from thaw.features.store import FeatureKey, FeatureStore, open_store, writing

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Look:
    """Which images are looked at, and how: `views` random views of each of `rows`, drawn from `seed`."""

    rows: np.ndarray
    views: int
    augmentation: Augmentation
    seed: int
    spec: PixelSpec


def extract(
    pixels: PixelStore,
    look: Look,
    runner: Runner,
    backbone: Backbone,
    positions: Sequence[int],
    cache: Path,
    batch_size: int,
    on_progress: OnProgress,
) -> dict[int, FeatureStore]:
    """Features of a look at each of `positions`; what an earlier run has stored is read, the rest made in one pass.

    Stored in half precision; a cut whose features are too large for it is stored in float32.
    """
    wanted = {
        position: _key(pixels, look, runner, backbone, position, "float16") for position in sorted(set(positions))
    }
    try:
        return _fill(pixels, look, runner, wanted, cache, batch_size, on_progress)
    except OverflowError:
        wider = {position: replace(key, dtype="float32") for position, key in wanted.items()}
        return _fill(pixels, look, runner, wider, cache, batch_size, on_progress)


def _fill(
    pixels: PixelStore,
    look: Look,
    runner: Runner,
    keys: dict[int, FeatureKey],
    cache: Path,
    batch_size: int,
    on_progress: OnProgress,
) -> dict[int, FeatureStore]:
    stores = {position: open_store(cache, key) for position, key in keys.items()}
    missing = [position for position, store in stores.items() if store is None]
    total = len(look.rows) * look.views
    if missing:
        with ExitStack() as stack:
            writers = [stack.enter_context(writing(cache, keys[position])) for position in missing]
            done = 0
            for batch in rendered(pixels, look, batch_size):
                for writer, features in zip(writers, runner.run(batch, missing), strict=True):
                    writer.append(features)
                done += len(batch)
                on_progress(done, total)
        stores |= {position: open_store(cache, keys[position]) for position in missing}
    on_progress(total, total)
    return {position: _present(store) for position, store in stores.items()}


def rendered(pixels: PixelStore, look: Look, batch_size: int) -> Iterator[Tensor]:
    """Every view of every row, row by row, in batches (N, S, S, 3) uint8; one batch is drawn ahead of its use."""
    items = ((int(row), view) for row in look.rows for view in range(look.views))
    batches = iter(lambda: list(islice(items, batch_size)), [])
    with ThreadPoolExecutor(max_workers=1) as ahead:
        following = None
        for batch in batches:
            current, following = following, ahead.submit(draw, pixels, look, batch)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


def draw(pixels: PixelStore, look: Look, items: Sequence[tuple[int, int]]) -> Tensor:
    """The (row, view) pairs as pixels (N, S, S, 3) uint8."""
    out = np.empty((len(items), look.spec.size, look.spec.size, 3), dtype=np.uint8)
    render(pixels.read, items, look.spec, look.augmentation, look.seed, out, worker_count())
    return torch.from_numpy(out)


def bytes_per_view(backbone: Backbone, positions: Sequence[int]) -> dict[int, int]:
    """Bytes that one view takes in half precision at each position, found by one small forward pass."""
    size = backbone.facts.pixels.size
    pixels = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)
    sizes, value, start = {}, pixels, 0
    with torch.no_grad():
        for position in sorted(set(positions)):
            value, start = backbone.run(value, start, position), position
            sizes[position] = value.numel() * 2
    return sizes


def _key(pixels: PixelStore, look: Look, runner: Runner, backbone: Backbone, position: int, dtype: str) -> FeatureKey:
    return FeatureKey(
        pixels=pixels.key,
        rows=hashlib.sha256(np.ascontiguousarray(look.rows, dtype=np.int64).tobytes()).hexdigest(),
        views=look.views,
        augmentation=repr((look.augmentation, look.spec)),
        seed=look.seed,
        backbone=f"{backbone.digest(position)} {backbone.facts.mean} {backbone.facts.std}",
        position=position,
        engine=runner.name,
        dtype=dtype,
    )


def _present(store: FeatureStore | None) -> FeatureStore:
    if store is None:
        raise OSError("a feature store vanished while it was in use; run again")
    return store
