"""What is computed once from the images of a project: decoded pixels, near-duplicates and features, all cached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from thaw.backbones import build
from thaw.backbones.default import name_backbone
from thaw.cache import cache_folder
from thaw.cores import worker_count
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.inspection.duplicates import DuplicatePair, find_duplicates
from thaw.inspection.image_quality import QualityFlag, find_quality_flags
from thaw.labelling.head import standardised
from thaw.labelling.label import Extraction
from thaw.progress import Bar
from thaw.recipe import Recipe
from thaw.studio.images import Images
from thaw.studio.marks import Mark


@dataclass(frozen=True)
class ImageFeatures:
    """Facts about the images that do not depend on labels.

    Attributes:
        manifest: With what decoding found out about each file.
        pixels: The decoded images.
        duplicates: Pairs of identical files and of near-duplicates.
        quality: Images that stand out in brightness, sharpness, contrast or size.
        rows: (N,) int, the readable rows.
        values: (N, D) float32, their pooled features.
        scaled: The same, standardised over all images.
        position: (rows of the manifest,) int, the place of each row in `rows`; -1 for unreadable ones.
        backbone: Which network extracted the features, for the user.
    """

    manifest: Manifest
    pixels: PixelStore
    duplicates: tuple[DuplicatePair, ...]
    quality: tuple[QualityFlag, ...]
    rows: np.ndarray
    values: np.ndarray
    scaled: np.ndarray
    position: np.ndarray
    backbone: str

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The rows of each pair of duplicates."""
        return [(pair.first, pair.second) for pair in self.duplicates]


@dataclass(frozen=True)
class Snapshot:
    """The images with their marks at one moment.

    Attributes:
        features: What does not depend on labels.
        marks: The mark of each row.
        classes: Every class.
    """

    features: ImageFeatures
    marks: Sequence[Mark]
    classes: tuple[str, ...]

    @cached_property
    def manifest(self) -> Manifest:
        """The images with the labels of this moment; excluded ones have none."""
        labels = [[mark.label] if mark.label is not None else [] for mark in self.marks]
        return replace(self.features.manifest.with_columns({"labels": labels}), classes=self.classes)

    def class_indices(self, rows: Iterable[int]) -> np.ndarray:
        """(N,) int, the class of each of some rows that have a label."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[self.marks[row].label or ""] for row in rows], int)


def extract_features(images: Images, recipe: Recipe, bar: Bar) -> ImageFeatures:
    """Decode every image, find near-duplicates, and extract features, as far as the cache does not have them.

    Args:
        images: The images.
        recipe: Its backbone, weights, image size, decoding, device, engine and seed are used.
        bar: Opens a progress bar with a title.

    Raises:
        DataError: No image can be read.
        BackboneError: The backbone or its weights cannot be had.
        WriteError: The disk is full.
    """
    bar("load the network")
    notes: list[str] = []
    named, _ = name_backbone(recipe, notes.append)
    backbone = build(named)
    # Distances are about what is seen: the last stage, whatever a head would take.
    backbone.use_features("last")
    extraction = Extraction(named, backbone, cache_folder(), bar)
    pixels = extraction.decode(images.manifest)
    manifest = pixels.describe(images.manifest)
    duplicates = find_duplicates(manifest, pixels, bar("find near-duplicates"))
    rows = np.flatnonzero([status == "ok" for status in manifest.column("status")])
    bar("check brightness and sharpness")
    quality = find_quality_flags(pixels, manifest, rows.tolist(), worker_count())
    values = extraction.extract(pixels, rows)
    position = np.full(len(manifest), -1)
    position[rows] = np.arange(len(rows))
    described = f"{backbone.facts.architecture}, {backbone.facts.origin}"
    return ImageFeatures(manifest, pixels, duplicates, quality, rows, values, standardised(values), position, described)
