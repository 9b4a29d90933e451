"""Look at every image once: draw views, run the frozen part, store what lies at each cut, in one pass.

Three things go on at once: the next batch is drawn, this one runs, the last one is written. All of them leave Python's
lock, so neither core idles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thaw import cache as stores_on_disk
from thaw.backbones.contract import Backbone
from thaw.data.augment import Augmentation, render
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.device import worker_count
from thaw.features.engines import FrozenPart
from thaw.features.store import FeatureKey, FeatureStore, FeatureWriter, StoredType, open_store, writing

OnProgress = Callable[[int, int], None]
BATCH = 64


@dataclass(frozen=True)
class ViewRequest:
    """Which images are looked at, and how: `views` random views of each of `rows`, drawn from `seed`."""

    rows: np.ndarray
    views: int
    augmentation: Augmentation
    seed: int
    spec: PixelSpec


@dataclass(frozen=True)
class FeatureCache:
    """Where features are kept: the cache folder, how they are stored, and how many bytes of them it may hold."""

    cache: Path
    dtype: StoredType
    budget: int


def extract(
    pixels: PixelStore,
    request: ViewRequest,
    frozen: FrozenPart,
    positions: Sequence[int],
    feature_cache: FeatureCache,
    on_progress: OnProgress,
) -> dict[int, FeatureStore]:
    """Features of a look at each of `positions`; what an earlier run has stored is read, the rest made in one pass.

    A cut whose features are too large for half precision is stored in float32.
    """
    wanted = {
        position: _key(pixels, request, frozen, position, feature_cache.dtype) for position in sorted(set(positions))
    }
    try:
        return _fill(pixels, request, frozen, wanted, feature_cache, on_progress)
    except OverflowError:
        wider = {position: replace(key, dtype="float32") for position, key in wanted.items()}
        return _fill(pixels, request, frozen, wider, feature_cache, on_progress)


def _fill(
    pixels: PixelStore,
    request: ViewRequest,
    frozen: FrozenPart,
    keys: dict[int, FeatureKey],
    feature_cache: FeatureCache,
    on_progress: OnProgress,
) -> dict[int, FeatureStore]:
    stores = {position: open_store(feature_cache.cache, key, request.views) for position, key in keys.items()}
    absent = [position for position, store in stores.items() if store is None]
    total = len(request.rows) * request.views
    if absent:
        sizes = bytes_per_view(frozen.backbone, absent, feature_cache.dtype)
        stores_on_disk.make_room(feature_cache.cache, total * sum(sizes.values()), feature_cache.budget)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(
                    writing(feature_cache.cache, keys[position], request.views, _about(frozen.backbone, position))
                )
                for position in absent
            ]
            _pass_through(rendered(pixels, request, BATCH), frozen.runner(absent).run, writers, total, on_progress)
        stores |= {position: open_store(feature_cache.cache, keys[position], request.views) for position in absent}
    on_progress(total, total)
    return {position: _present(store) for position, store in stores.items()}


def _pass_through(
    batches: Iterable[Tensor],
    run: Callable[[Tensor], list[Tensor]],
    writers: Sequence[FeatureWriter],
    total: int,
    on_progress: OnProgress,
) -> None:
    """Run every batch and append its outputs, writing behind the run."""

    def write(outputs: list[Tensor]) -> None:
        for writer, features in zip(writers, outputs, strict=True):
            writer.append(features)

    with ThreadPoolExecutor(max_workers=1) as behind:
        done, written = 0, None
        for batch in batches:
            outputs = run(batch)
            _wait(written)
            written = behind.submit(write, outputs)
            done += len(batch)
            on_progress(done, total)
        _wait(written)


def _wait(future: Future[None] | None) -> None:
    """Let what went wrong in a thread go wrong here."""
    if future is not None:
        future.result()


def rendered(pixels: PixelStore, request: ViewRequest, batch_size: int) -> Iterator[Tensor]:
    """Every view of every row, row by row, in batches (N, S, S, 3) uint8; one batch is drawn ahead of its use."""
    items = ((int(row), view) for row in request.rows for view in range(request.views))
    batches = iter(lambda: list(islice(items, batch_size)), [])
    with ThreadPoolExecutor(max_workers=1) as ahead:
        following = None
        for batch in batches:
            current, following = following, ahead.submit(draw, pixels, request, batch)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


def draw(pixels: PixelStore, request: ViewRequest, items: Sequence[tuple[int, int]]) -> Tensor:
    """The (row, view) pairs as pixels (N, S, S, 3) uint8."""
    out = np.empty((len(items), request.spec.size, request.spec.size, 3), dtype=np.uint8)
    render(pixels.read, items, request.spec, request.augmentation, request.seed, out, worker_count())
    return torch.from_numpy(out)


def bytes_per_view(backbone: Backbone, positions: Sequence[int], dtype: StoredType = "float16") -> dict[int, int]:
    """Bytes that one view takes at each position, found by one small forward pass."""
    size = backbone.facts.pixels.size
    value, start = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device), 0
    sizes = {}
    with torch.no_grad():
        for position in sorted(set(positions)):
            value, start = backbone.run(value, start, position), position
            sizes[position] = stored_bytes(tuple(value.shape[1:]), dtype)
    return sizes


def stored_bytes(shape: tuple[int, ...], dtype: StoredType) -> int:
    """Bytes of one view of features (C, H, W) or (C,)."""
    if dtype == "uint8" and len(shape) == 3:
        return int(np.prod(shape)) + 8 * shape[0]
    return int(np.prod(shape)) * (4 if dtype == "float32" else 2)


def _about(backbone: Backbone, position: int) -> Mapping[str, Any]:
    names = (*backbone.block_names, "head")
    return {"backbone": backbone.facts.architecture, "cut": names[position]}


def _key(pixels: PixelStore, request: ViewRequest, frozen: FrozenPart, position: int, dtype: StoredType) -> FeatureKey:
    facts = frozen.backbone.facts
    return FeatureKey(
        pixels=pixels.key,
        rows=hashlib.sha256(np.ascontiguousarray(request.rows, dtype=np.int64).tobytes()).hexdigest(),
        augmentation=repr((request.augmentation, request.spec)),
        seed=request.seed,
        backbone=f"{frozen.backbone.digest(position)} {facts.mean} {facts.std}",
        position=position,
        engine=frozen.label,
        dtype=dtype,
    )


def _present(store: FeatureStore | None) -> FeatureStore:
    if store is None:
        raise OSError("a feature store vanished while it was in use; run again")
    return store
