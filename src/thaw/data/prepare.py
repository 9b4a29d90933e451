"""Prepares a data set for training: decode, find near-duplicates and groups, split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.cores import worker_count
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.group_split import assign_groups
from thaw.data.groups import group_images
from thaw.data.leaks import conflicting_labels
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.progress import Bar
from thaw.recipe import DecodeSettings, SplitSettings


@dataclass(frozen=True)
class LabelledRows:
    """Rows of the pixel store and their targets: (N,) int64, or (N, C) float32 for multilabel."""

    rows: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A decoded and split data set.

    Attributes:
        manifest: The rows with their splits.
        pixels: The decoded images.
        notes: Remarks for the user.
        duplicates: Pairs of rows that are near-duplicates.
    """

    manifest: Manifest
    pixels: PixelStore
    notes: tuple[str, ...]
    duplicates: tuple[tuple[int, int], ...] = ()

    def rows(self, split: str) -> LabelledRows:
        """Readable rows of a split with their targets."""
        rows = self.manifest.indices(split)
        return LabelledRows(rows, self.manifest.targets()[rows])


@dataclass(frozen=True)
class DataPreparation:
    """How a data set is decoded and split.

    Attributes:
        decode: How image files are decoded.
        split: Fractions and seed of the split, and what groups are.
        previous: Manifest of an earlier run, whose images keep their split.
        cache: Folder of the cache of decoded images.
        bar: Opens a progress bar with a title.
    """

    decode: DecodeSettings
    split: SplitSettings
    previous: Manifest | None
    cache: Path
    bar: Bar

    def prepare(self, dataset: Dataset, spec: PixelSpec, split_as: Prepared | None = None) -> Prepared:
        """Decode all images, find near-duplicates and groups, and split the readable images.

        With `split_as`, the same images decoded for another geometry, the near-duplicates and the split are those.
        """
        workers, manifest = worker_count(), dataset.manifest
        if dataset.ahead:
            dataset.ahead.finish(spec, self.decode, self.bar)
        pixels = PixelStore.open_or_build(manifest, Decoding(spec, self.decode, workers), self.cache, self.bar)
        described = pixels.describe(manifest)
        if split_as and described.column("status") == split_as.manifest.column("status"):
            return replace(split_as, pixels=pixels)
        found = pixels.duplicates(workers, self.bar("find near-duplicates"))
        duplicates = tuple((pair.first, pair.second) for pair in found)
        grouped = group_images(described, self.split.group_by, pixels.captures())
        split_result = assign_groups(grouped.manifest, self.split, self.previous, duplicates)
        notes = (
            *pixels.notes(),
            *conflicting_labels(split_result.manifest),
            *grouped.notes,
            *split_result.notes,
        )
        return Prepared(split_result.manifest, pixels, notes, duplicates)
