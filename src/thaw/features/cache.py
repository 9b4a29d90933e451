"""The feature cache: features at a cut, for one view of every image, in sealed folders named by their key.

Every view is an entry of its own, so what the plan measured on some views serves training, and so does a finished view
of an extraction that was killed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from thaw.temporary import discard
from thaw.writing import advising

FORMAT = 3
_ABOUT = "about.json"
_COPIED = 1 << 24
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
class Part:
    """One of `count` parts of the rows of an entry, which are written by a process each."""

    index: int
    count: int


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

    def has(self, key: FeatureKey, part: Part | None = None) -> bool:
        """Whether an intact entry is there, or a part of it."""
        return atomic.is_intact(self.folder_of(key, part))

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

    def open_similar(self, keys: Sequence[FeatureKey], with_stages: bool = True) -> CachedFeatures | None:
        """As `open`, but views that another engine has extracted or that another dtype stores, the same for all."""
        wanted = [_extracted_anyhow(key) for key in keys]
        variants: defaultdict[tuple[str, CacheDtype], set[FeatureKey]] = defaultdict(set)
        for key in self.keys():
            if _extracted_anyhow(key) in wanted:
                variants[key.engine, key.dtype].add(_extracted_anyhow(key))
        for (engine, dtype), there in sorted(variants.items()):
            if there.issuperset(wanted):
                found = self.open([replace(key, engine=engine, dtype=dtype) for key in keys], with_stages)
                if found is not None:
                    return found
        return None

    def keys(self) -> Iterator[FeatureKey]:
        """The key of every entry that says what it is."""
        for about in (self.folder / "features").glob(f"*/{_ABOUT}"):
            try:
                key = FeatureKey(**json.loads(about.read_bytes())["key"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if key.digest() == about.parent.name:
                yield key

    @contextmanager
    def writing(
        self,
        key: FeatureKey,
        about: Mapping[str, Any] | None = None,
        needed: int = 0,
        part: Part | None = None,
    ) -> Iterator[FeatureWriter]:
        """Add an entry: append the view of every row, in order. The entry appears when the block ends without error.

        `about` describes the features in the list of cache entries. `needed` is said where the disk is full: bytes of
        all features that are still to be written. `part`: the part of the rows that is written, for `merge`.

        Raises:
            WriteError: The disk is full, or the cache cannot be written.
        """
        sums: dict[Path, int] = {}
        with self._sealing(key, sums, needed, part) as entry:
            value_file, stage_file = entry / _VALUES[0], entry / _STAGES[0]
            with atomic.summing(value_file, sums) as values, atomic.summing(stage_file, sums) as stages:
                writer = FeatureWriter(values, stages, key.dtype)
                yield writer
            if not writer.rows:
                raise ValueError("cached features need at least one row")
            for (_, name), shape in zip((_VALUES, _STAGES), writer.shapes, strict=True):
                (entry / name).write_text(json.dumps([writer.rows, *shape]), encoding="utf-8")
            _describe(entry, key, about or {}, writer.rows)

    def merge(self, key: FeatureKey, parts: int, about: Mapping[str, Any]) -> None:
        """Make an entry of its parts, with the same bytes as if it had been written at once, and remove them.

        Does nothing where a part is missing or damaged.

        Raises:
            WriteError: The disk is full, or the cache cannot be written.
        """
        folders = [self.folder_of(key, Part(index, parts)) for index in range(parts)]
        if not all(map(atomic.is_intact, folders)):
            return
        sums: dict[Path, int] = {}
        with self._sealing(key, sums) as entry:
            for data, shape in (_VALUES, _STAGES):
                with atomic.summing(entry / data, sums) as whole:
                    for folder in folders:
                        with (folder / data).open("rb") as part:
                            shutil.copyfileobj(part, whole, _COPIED)
                shapes = [json.loads((folder / shape).read_text(encoding="utf-8")) for folder in folders]
                rows = sum(each[0] for each in shapes)
                (entry / shape).write_text(json.dumps([rows, *shapes[0][1:]]), encoding="utf-8")
            _describe(entry, key, about, rows)
        for folder in folders:
            discard(folder)

    @contextmanager
    def _sealing(
        self, key: FeatureKey, sums: Mapping[Path, int], needed: int = 0, part: Part | None = None
    ) -> Iterator[Path]:
        amount = f"the cached features need about {size(needed)}" if needed else ""
        with advising(LARGER_DISK), atomic.sealed_folder(self.folder_of(key, part), amount, sums) as entry:
            yield entry

    def make_room(self, needed: int, kept: Iterable[FeatureKey] = ()) -> None:
        """Remove the least recently used features, but none of `kept`, until `needed` more bytes fit the budget."""
        if self.budget is not None:
            make_room(self.folder, needed, self.budget, [key.digest() for key in kept])

    def folder_of(self, key: FeatureKey, part: Part | None = None) -> Path:
        """The folder of a key, or of a part of its rows."""
        name = key.digest()
        return self.folder / "features" / (f"{name}-part-{part.index}-of-{part.count}" if part else name)


def _extracted_anyhow(key: FeatureKey) -> FeatureKey:
    """A key without what extracted the features and how they are stored."""
    return replace(key, engine="", dtype="float32")


def _describe(entry: Path, key: FeatureKey, about: Mapping[str, Any], rows: int) -> None:
    """What the list of cache entries shows, and the key."""
    description = {**about, "images": rows, "view": key.view, "key": asdict(key)}
    (entry / _ABOUT).write_text(json.dumps(description, indent=2), encoding="utf-8")


def _grid(entries: Sequence[Path], data: str, shape: str, dtype: CacheDtype) -> ItemGrid:
    """One file of some entries, each a view of the same rows; raises `ValueError` where they differ in shape."""
    shapes = {(entry / shape).read_text(encoding="utf-8") for entry in entries}
    if len(shapes) > 1:
        raise ValueError(f"views of different shapes: {', '.join(sorted(shapes))}")
    rows, *item = json.loads(shapes.pop())
    item_dtype, item_shape = item_type(dtype, tuple(item))
    return ItemGrid([entry / data for entry in entries], item_dtype, rows, item_shape)
