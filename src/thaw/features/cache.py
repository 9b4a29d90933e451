"""The feature cache: features at a cut, for one view of every image, in sealed folders named by their key.

Every view is an entry of its own, so what the plan measured on some views serves training, and so does a finished view
of an extraction that was killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from thaw import atomic
from thaw.backbones.stages import AtCut
from thaw.cache import LARGER_DISK, make_room
from thaw.features.encoding import CacheDtype, decode, encode, encoded_bytes, item_type
from thaw.formats import size
from thaw.piecewise import ItemGrid
from thaw.writing import advising

FORMAT = 3
_ABOUT = "about.json"
_VALUES, _STAGES = ("features.bin", "shape.json"), ("stages.bin", "stages.json")
"""Data and shape of the values, and of the statistics of stages."""


@dataclass(frozen=True)
class FeatureKey:
    """Everything that determines the cached features of one view; equal keys have equal features.

    pixels: key of the pixel store. rows: hash of the rows. augmentation: its settings, and the version of its code.
    backbone: hash of the weights below the cut. position: of the cut. engine: with its version and device. view: number
    of the view.
    """

    pixels: str
    rows: str
    augmentation: str
    seed: int
    backbone: str
    position: int
    engine: str
    dtype: CacheDtype
    view: int
    format: int = FORMAT

    def digest(self) -> str:
        """32 hexadecimal digits that name the folder."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of `rows` images in `views` views, read from disk on demand.

    grid: encoded views by row and view, as `encoding.item_type` describes them. stages: the statistics of stages in
    the same way; `None` where there are none.
    """

    grid: np.ndarray | ItemGrid
    rows: range
    views: int
    stages: np.ndarray | ItemGrid | None = None

    @classmethod
    def whole(cls, grid: np.ndarray | ItemGrid, stages: np.ndarray | ItemGrid | None = None) -> CachedFeatures:
        """All rows and views of a grid."""
        return cls(grid, range(grid.shape[0]), grid.shape[1], stages)

    def part(self, start: int, stop: int) -> CachedFeatures:
        """The rows from `start` to `stop`."""
        return replace(self, rows=self.rows[start:stop])

    @property
    def parts(self) -> tuple[np.ndarray | ItemGrid, ...]:
        """The grid, and that of the stages if there are any."""
        return (self.grid,) if self.stages is None else (self.grid, self.stages)

    def batch(self, rows: np.ndarray, views: np.ndarray) -> AtCut:
        """View `views[i]` of row `rows[i]`, maps in channels_last; float16 or float32."""
        rows = rows + self.rows.start
        values = decode(self.grid[rows, views])
        values = values.permute(0, 3, 1, 2) if values.ndim == 4 else values
        return AtCut.above_nothing(values) if self.stages is None else AtCut(values, decode(self.stages[rows, views]))


def bytes_of_view(at: AtCut, dtype: CacheDtype) -> int:
    """Bytes on disk of one view of what lies at a cut."""
    return sum(encoded_bytes(tuple(part.shape[1:]), dtype) for part in at)


class FeatureWriter:
    """Appends features to an entry of the cache."""

    def __init__(self, values: BinaryIO, stages: BinaryIO, dtype: CacheDtype) -> None:
        self._streams = values, stages
        self._dtype = dtype
        self.rows = 0
        self.shapes: tuple[tuple[int, ...], ...] = ()

    def append(self, at: AtCut) -> None:
        """Add what lies at a cut; raises `OverflowError` where the dtype cannot represent it."""
        values = at.values.permute(0, 2, 3, 1) if at.values.ndim == 4 else at.values
        parts = values, at.stages
        self.rows += len(values)
        self.shapes = tuple(tuple(part.shape[1:]) for part in parts)
        for stream, part in zip(self._streams, parts, strict=True):
            if part.shape[1]:
                stream.write(encode(part, self._dtype))


@dataclass(frozen=True)
class FeatureCache:
    """A cache folder, how features are stored in it, and how many bytes they may take in all; `None` for no limit."""

    folder: Path
    dtype: CacheDtype
    budget: int | None = None

    def has(self, key: FeatureKey) -> bool:
        """Whether an intact entry is there."""
        return atomic.is_intact(self.folder_of(key))

    def open(self, keys: Sequence[FeatureKey], with_stages: bool = True) -> CachedFeatures | None:
        """The views of some keys, in that order, or `None` where one is missing, incomplete or damaged.

        `with_stages`: with the statistics of stages, if there are any.
        """
        entries = [self.folder_of(key) for key in keys]
        if not all(map(atomic.is_intact, entries)):
            return None
        try:
            grid = _grid(entries, *_VALUES, keys[0].dtype)
            stages = _grid(entries, *_STAGES, keys[0].dtype) if with_stages else None
        except (OSError, ValueError):
            # Removed, or being removed, since it was found.
            return None
        for entry in entries:
            atomic.mark_used(entry)
        return CachedFeatures.whole(grid, stages if stages and stages.shape[2] else None)

    @contextmanager
    def writing(
        self, key: FeatureKey, about: Mapping[str, Any] | None = None, needed: int = 0
    ) -> Iterator[FeatureWriter]:
        """Add an entry: append the view of every row, in order. The entry appears when the block ends without error.

        `about` describes the features in the list of cache entries. `needed` is said where the disk is full: bytes of
        all features that are still to be written.

        Raises:
            WriteError: The disk is full, or the cache cannot be written.
        """
        amount = f"the cached features need about {size(needed)}" if needed else ""
        with advising(LARGER_DISK), atomic.sealed_folder(self.folder_of(key), amount) as entry:
            with (entry / _VALUES[0]).open("wb") as values, (entry / _STAGES[0]).open("wb") as stages:
                writer = FeatureWriter(values, stages, key.dtype)
                yield writer
            if not writer.rows:
                raise ValueError("cached features need at least one row")
            for (_, name), shape in zip((_VALUES, _STAGES), writer.shapes, strict=True):
                (entry / name).write_text(json.dumps([writer.rows, *shape]), encoding="utf-8")
            description = {**(about or {}), "images": writer.rows, "view": key.view, "key": asdict(key)}
            (entry / _ABOUT).write_text(json.dumps(description, indent=2), encoding="utf-8")

    def make_room(self, needed: int) -> None:
        """Remove the least recently used features until `needed` more bytes fit the budget."""
        if self.budget is not None:
            make_room(self.folder, needed, self.budget)

    def folder_of(self, key: FeatureKey) -> Path:
        """The folder of a key."""
        return self.folder / "features" / key.digest()


def _grid(entries: Sequence[Path], data: str, shape: str, dtype: CacheDtype) -> ItemGrid:
    """One file of some entries, each a view of the same rows; raises `ValueError` where they differ in shape."""
    shapes = {(entry / shape).read_text(encoding="utf-8") for entry in entries}
    if len(shapes) > 1:
        raise ValueError(f"views of different shapes: {', '.join(sorted(shapes))}")
    rows, *item = json.loads(shapes.pop())
    item_dtype, item_shape = item_type(dtype, tuple(item))
    return ItemGrid([entry / data for entry in entries], item_dtype, rows, item_shape)
