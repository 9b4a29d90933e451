"""Everything between a data set as found and one that can be trained on: decoded once, checked, divided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.data.dataset import Dataset
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.split import assign
from thaw.device import worker_count
from thaw.recipe import DecodeSettings, SplitSettings


@dataclass(frozen=True)
class LabelledRows:
    """Rows of the pixel store and their targets: (N,) int64, or (N, C) float32 for multilabel."""

    rows: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A data set that is decoded and divided; `notes` are sentences that a person should read."""

    manifest: Manifest
    pixels: PixelStore
    notes: tuple[str, ...]

    def rows(self, split: str) -> LabelledRows:
        """Readable rows of a split with their targets."""
        rows = self.manifest.indices(split)
        return LabelledRows(rows, self.manifest.targets()[rows])


def prepare(
    dataset: Dataset,
    spec: PixelSpec,
    decode: DecodeSettings,
    split: SplitSettings,
    previous: Manifest | None,
    cache: Path,
    on_progress: Callable[[int, int], None],
) -> Prepared:
    """Decode every image once and divide the readable ones; images that `previous` knows keep their split."""
    pixels = PixelStore.open_or_build(dataset.manifest, spec, decode, cache, worker_count(), on_progress)
    divided = assign(pixels.describe(dataset.manifest), split, previous)
    return Prepared(divided.manifest, pixels, (*pixels.notes(), *divided.notes))
