"""Stored features: what lies at a cut, for every view of every image, in sealed files.

A store of more views serves a run that wants fewer, for a view does not depend on how many others there are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from thaw import atomic
from thaw.piecewise import ItemGrid

FORMAT = 2
StoredType = Literal["float32", "float16", "uint8"]
LEVELS = 255
_DATA, _SHAPE, _ABOUT = "features.bin", "shape.json", "about.json"
_TORCH = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class FeatureKey:
    """Everything that determines what a store holds but the number of views; equal keys hold equal features."""

    pixels: str
    rows: str
    augmentation: str
    seed: int
    backbone: str
    position: int
    engine: str
    dtype: StoredType
    format: int = FORMAT

    def digest(self) -> str:
        """What the folder of this store is called, before the number of its views."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FeatureStore:
    """Features (rows, views, H, W, C) or (rows, views, C), read from disk as needed.

    float16 or float32 as they are; or uint8 with the least value and the step of each channel of each view, as
    `quantised_type` has them.
    """

    grid: np.ndarray | ItemGrid
    rows: range
    views: int

    @classmethod
    def whole(cls, grid: np.ndarray | ItemGrid) -> FeatureStore:
        """All rows and views of a grid."""
        return cls(grid, range(grid.shape[0]), grid.shape[1])

    def part(self, start: int, stop: int) -> FeatureStore:
        """The rows from `start` to `stop`."""
        return replace(self, rows=self.rows[start:stop])

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """View `views[i]` of row `rows[i]`: (N, C, H, W) channels last in memory, or (N, C); float16 or float32."""
        read = self.grid[rows + self.rows.start, views]
        features = torch.from_numpy(read) if read.dtype.names is None else restored(read)
        return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


def quantised_type(shape: tuple[int, ...]) -> np.dtype:
    """One view in eight bits: levels (H, W, C) uint8, and per channel the least value and the step, float32."""
    return np.dtype([("levels", "u1", shape), ("least", "f4", shape[-1:]), ("step", "f4", shape[-1:])])


def quantised(values: np.ndarray) -> np.ndarray:
    """Features (N, H, W, C) float32 as (N,) of `quantised_type`: off by at most half a step of their channel."""
    least = values.min(axis=(1, 2))
    step = (values.max(axis=(1, 2)) - least) / LEVELS
    scaled = (values - least[:, None, None]) / np.where(step > 0, step, 1)[:, None, None]
    record = np.empty(len(values), quantised_type(values.shape[1:]))
    record["levels"], record["least"], record["step"] = np.rint(scaled), least, step
    return record


def restored(record: np.ndarray) -> Tensor:
    """The features (N, H, W, C) float32 that `quantised` rounded."""
    levels = torch.from_numpy(np.ascontiguousarray(record["levels"])).float()
    step, least = (torch.from_numpy(record[name].copy())[:, None, None] for name in ("step", "least"))
    return levels.mul_(step).add_(least)


class FeatureWriter:
    """Appends features to a store that is being made."""

    def __init__(self, stream: BinaryIO, dtype: StoredType) -> None:
        self._stream = stream
        self._dtype = dtype
        self.shape: tuple[int, ...] | None = None

    def append(self, features: Tensor) -> None:
        """Add features (N, C, H, W) or (N, C); raises `OverflowError` where the store's dtype cannot hold them.

        Pooled features are so small that a uint8 store keeps them in float16.
        """
        if features.ndim == 4:
            features = features.permute(0, 2, 3, 1)
        self.shape = tuple(features.shape[1:])
        if self._dtype == "uint8" and features.ndim == 4:
            values = features.float().cpu().numpy()
            if not np.isfinite(values).all():
                raise OverflowError("features are not finite")
            self._stream.write(quantised(values).tobytes())
            return
        kept = features.to(_TORCH.get(self._dtype, torch.float16)).cpu().contiguous()
        if not torch.isfinite(kept).all():
            raise OverflowError(f"features exceed {self._dtype}")
        self._stream.write(kept.numpy().data.cast("B"))


def item_type(dtype: StoredType, shape: tuple[int, ...]) -> tuple[np.dtype, tuple[int, ...]]:
    """How one view lies in the file, as a dtype and the axes of it that follow rows and views."""
    if dtype == "uint8" and len(shape) == 3:
        return quantised_type(shape), ()
    return np.dtype("float16" if dtype == "uint8" else dtype), shape


def folder_of(cache: Path, key: FeatureKey, views: int) -> Path:
    """Where the store of a key with this many views lies."""
    return cache / "features" / f"{key.digest()}-{views}"


def open_store(cache: Path, key: FeatureKey, views: int) -> FeatureStore | None:
    """The first `views` views of a store of a key, or `None` when there is none, or only torn or damaged ones."""
    for folder in _candidates(cache, key, views):
        if atomic.is_intact(folder):
            os.utime(folder / atomic.SEAL)
            shape = tuple(json.loads((folder / _SHAPE).read_bytes()))
            dtype, tail = item_type(key.dtype, shape[2:])
            grid = ItemGrid(folder / _DATA, dtype, (*shape[:2], *tail))
            return FeatureStore(grid, range(shape[0]), views)
    return None


@contextmanager
def writing(
    cache: Path, key: FeatureKey, views: int, about: Mapping[str, Any] | None = None
) -> Iterator[FeatureWriter]:
    """Make the store of a key: append every view of every row, in order; it appears when the block ends well.

    `about` is kept for people, who want to know what a store is of.
    """
    with atomic.sealed_folder(folder_of(cache, key, views)) as folder:
        with (folder / _DATA).open("wb") as stream:
            writer = FeatureWriter(stream, key.dtype)
            yield writer
            size = stream.tell()
        if writer.shape is None:
            raise ValueError("a feature store needs at least one row")
        dtype, tail = item_type(key.dtype, writer.shape)
        rows = size // (views * int(np.prod(tail, dtype=int)) * dtype.itemsize)
        (folder / _SHAPE).write_text(json.dumps([rows, views, *writer.shape]), encoding="utf-8")
        story = {**(about or {}), "images": rows, "views": views, "key": asdict(key)}
        (folder / _ABOUT).write_text(json.dumps(story, indent=2), encoding="utf-8")


def _candidates(cache: Path, key: FeatureKey, views: int) -> list[Path]:
    """Folders of a key with at least `views` views, the fewest first."""
    found = {}
    for folder in (cache / "features").glob(f"{key.digest()}-*"):
        number = folder.name.rpartition("-")[2]
        if number.isdecimal() and int(number) >= views:
            found[int(number)] = folder
    return [found[number] for number in sorted(found)]
