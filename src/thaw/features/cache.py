"""The feature cache: features at a cut, for every view of every image, in sealed folders named by their key.

Features of more views serve a run that needs fewer, because a view does not depend on the number of views.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from thaw import atomic
from thaw.cache import LARGER_DISK, make_room
from thaw.features.encoding import CacheDtype, decode, encode, item_type
from thaw.formats import size
from thaw.piecewise import ItemGrid
from thaw.writing import advising

FORMAT = 2
_DATA, _SHAPE, _ABOUT = "features.bin", "shape.json", "about.json"


@dataclass(frozen=True)
class FeatureKey:
    """Everything that determines cached features but the number of views; equal keys have equal features.

    pixels: key of the pixel store. rows: hash of the rows. augmentation: its settings, and the version of its code.
    backbone: hash of the weights below the cut. position: of the cut. engine: with its version and device.
    """

    pixels: str
    rows: str
    augmentation: str
    seed: int
    backbone: str
    position: int
    engine: str
    dtype: CacheDtype
    format: int = FORMAT

    def digest(self) -> str:
        """32 hexadecimal digits that name the folder, before the number of views."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of `rows` images in `views` views, read from disk on demand.

    grid: encoded views by row and view, as `encoding.item_type` describes them.
    """

    grid: np.ndarray | ItemGrid
    rows: range
    views: int

    @classmethod
    def whole(cls, grid: np.ndarray | ItemGrid) -> CachedFeatures:
        """All rows and views of a grid."""
        return cls(grid, range(grid.shape[0]), grid.shape[1])

    def part(self, start: int, stop: int) -> CachedFeatures:
        """The rows from `start` to `stop`."""
        return replace(self, rows=self.rows[start:stop])

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """View `views[i]` of row `rows[i]`: (N, C, H, W) in channels_last, or (N, C); float16 or float32."""
        features = decode(self.grid[rows + self.rows.start, views])
        return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


class FeatureWriter:
    """Appends features to an entry of the cache."""

    def __init__(self, stream: BinaryIO, dtype: CacheDtype) -> None:
        self._stream = stream
        self._dtype = dtype
        self.shape: tuple[int, ...] | None = None

    def append(self, features: Tensor) -> None:
        """Add features (N, C, H, W) or (N, C); raises `OverflowError` where the dtype cannot represent them."""
        if features.ndim == 4:
            features = features.permute(0, 2, 3, 1)
        self.shape = tuple(features.shape[1:])
        self._stream.write(encode(features, self._dtype))


@dataclass(frozen=True)
class FeatureCache:
    """A cache folder, how features are stored in it, and how many bytes they may take in all; `None` for no limit."""

    folder: Path
    dtype: CacheDtype
    budget: int | None = None

    def open(self, key: FeatureKey, views: int) -> CachedFeatures | None:
        """The first `views` views of a key, or `None` where they are missing, incomplete or damaged."""
        for entry in self._candidates(key, views):
            if features := _opened(entry, key, views):
                return features
        return None

    @contextmanager
    def writing(
        self, key: FeatureKey, views: int, about: Mapping[str, Any] | None = None, needed: int = 0
    ) -> Iterator[FeatureWriter]:
        """Add an entry: append every view of every row, in order. The entry appears when the block ends without error.

        `about` describes the features in the list of cache entries. `needed` is said where the disk is full: bytes of
        all features that are written at the same time.

        Raises:
            WriteError: The disk is full, or the cache cannot be written.
        """
        amount = f"the cached features need about {size(needed)}" if needed else ""
        with advising(LARGER_DISK), atomic.sealed_folder(self.folder_of(key, views), amount) as entry:
            with (entry / _DATA).open("wb") as stream:
                writer = FeatureWriter(stream, key.dtype)
                yield writer
                length = stream.tell()
            if writer.shape is None:
                raise ValueError("cached features need at least one row")
            dtype, item_shape = item_type(key.dtype, writer.shape)
            rows = length // (views * int(np.prod(item_shape, dtype=int)) * dtype.itemsize)
            (entry / _SHAPE).write_text(json.dumps([rows, views, *writer.shape]), encoding="utf-8")
            description = {**(about or {}), "images": rows, "views": views, "key": asdict(key)}
            (entry / _ABOUT).write_text(json.dumps(description, indent=2), encoding="utf-8")

    def make_room(self, needed: int) -> None:
        """Remove the least recently used features until `needed` more bytes fit the budget."""
        if self.budget is not None:
            make_room(self.folder, needed, self.budget)

    def folder_of(self, key: FeatureKey, views: int) -> Path:
        """The folder of a key with this number of views."""
        return self.folder / "features" / f"{key.digest()}-{views}"

    def _candidates(self, key: FeatureKey, views: int) -> list[Path]:
        """Folders of a key with at least `views` views, the fewest first."""
        found = {}
        for entry in (self.folder / "features").glob(f"{key.digest()}-*"):
            number = entry.name.rpartition("-")[2]
            if number.isdecimal() and int(number) >= views:
                found[int(number)] = entry
        return [found[number] for number in sorted(found)]


def _opened(entry: Path, key: FeatureKey, views: int) -> CachedFeatures | None:
    """The features of an entry, or `None` where it is damaged or being removed."""
    if not atomic.is_intact(entry):
        return None
    try:
        shape = tuple(json.loads((entry / _SHAPE).read_bytes()))
        dtype, item_shape = item_type(key.dtype, shape[2:])
        grid = ItemGrid(entry / _DATA, dtype, (*shape[:2], *item_shape))
    except (OSError, ValueError):
        return None
    atomic.mark_used(entry)
    return CachedFeatures(grid, range(shape[0]), views)
