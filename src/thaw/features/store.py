"""Stored features: what lies at a cut, for every view of every image, memory-mapped and sealed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from thaw import atomic

FORMAT = 1
_DATA, _SHAPE = "features.bin", "shape.json"


@dataclass(frozen=True)
class FeatureKey:
    """Everything that determines what a store holds; two equal keys hold equal features."""

    pixels: str
    rows: str
    views: int
    augmentation: str
    seed: int
    backbone: str
    position: int
    engine: str
    dtype: str
    format: int = FORMAT

    def digest(self) -> str:
        """The folder name of this store."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FeatureStore:
    """Features (rows, views, H, W, C) or (rows, views, C), float16 or float32, read from disk as needed."""

    array: np.ndarray

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """View `views[i]` of row `rows[i]`: (N, C, H, W) channels last in memory, or (N, C)."""
        features = torch.from_numpy(self.array[rows, views])
        return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


class FeatureWriter:
    """Appends features to a store that is being made."""

    def __init__(self, stream: BinaryIO, dtype: str) -> None:
        self._stream = stream
        self._dtype = dtype
        self.shape: tuple[int, ...] | None = None

    def append(self, features: Tensor) -> None:
        """Add features (N, C, H, W) or (N, C); raises `OverflowError` where the store's dtype cannot hold them."""
        if features.ndim == 4:
            features = features.permute(0, 2, 3, 1)
        values = features.to(torch.float16 if self._dtype == "float16" else torch.float32).cpu().contiguous()
        if not torch.isfinite(values).all():
            raise OverflowError(f"features exceed {self._dtype}")
        self.shape = tuple(values.shape[1:])
        self._stream.write(values.numpy().data.cast("B"))


def folder_of(cache: Path, key: FeatureKey) -> Path:
    """Where the store of a key lies."""
    return cache / "features" / key.digest()


def open_store(cache: Path, key: FeatureKey) -> FeatureStore | None:
    """The store of a key, or `None` when it is absent, torn or damaged."""
    folder = folder_of(cache, key)
    if not atomic.is_intact(folder):
        return None
    shape = tuple(json.loads((folder / _SHAPE).read_bytes()))
    return FeatureStore(np.memmap(folder / _DATA, dtype=key.dtype, mode="r", shape=shape))


@contextmanager
def writing(cache: Path, key: FeatureKey) -> Iterator[FeatureWriter]:
    """Make the store of a key: append every view of every row, in order; it appears when the block ends well."""
    with atomic.sealed_folder(folder_of(cache, key)) as folder:
        with (folder / _DATA).open("wb") as stream:
            writer = FeatureWriter(stream, key.dtype)
            yield writer
            size = stream.tell()
        if writer.shape is None:
            raise ValueError("a feature store needs at least one row")
        rows = size // (key.views * int(np.prod(writer.shape)) * np.dtype(key.dtype).itemsize)
        (folder / _SHAPE).write_text(json.dumps([rows, key.views, *writer.shape]), encoding="utf-8")
        (folder / "key.json").write_text(json.dumps(asdict(key), indent=2), encoding="utf-8")
