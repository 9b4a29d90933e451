"""The queue of a folder of images: features once, errors and near-duplicates apart, then the order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw import formats
from thaw.backbones.contract import Backbone
from thaw.cores import worker_count
from thaw.data.decoding import Decoding
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.device import choose_device
from thaw.errors import DataError
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, plain_sample, pooled_features
from thaw.features.probe import ExtractionJob, choose_engine
from thaw.inspection.duplicates import find_duplicates
from thaw.inspection.linear_probe import one_thread
from thaw.labelling.candidates import find_candidates
from thaw.labelling.folder import ImageFolder
from thaw.labelling.head import standardised
from thaw.labelling.order import Order, order_images
from thaw.labelling.outlook import look_ahead
from thaw.labelling.pool import UNLABELLED, Pool
from thaw.labelling.queue import LabelQueue, QueuedImage
from thaw.progress import Bar
from thaw.recipe import Recipe


@dataclass(frozen=True)
class Extraction:
    """How features are extracted.

    Attributes:
        recipe: Its device, engine, decoding and seed are used.
        backbone: Extracts the features.
        cache: Folder of the caches of pixels and features.
        bar: Opens a progress bar with a title.
    """

    recipe: Recipe
    backbone: Backbone
    cache: Path
    bar: Bar

    def decode(self, manifest: Manifest) -> PixelStore:
        """The decoded images of a manifest."""
        spec, settings = self.backbone.facts.pixels, self.recipe.decode
        return PixelStore.open_or_build(manifest, Decoding(spec, settings, worker_count()), self.cache, self.bar)

    def extract(self, pixels: PixelStore, rows: np.ndarray) -> np.ndarray:
        """Pooled features (N, D) float32 of some rows."""
        device, top = choose_device(self.recipe.device).device, self.backbone.head_position
        self.backbone.to(device)
        sample = plain_sample(pixels, rows, PROBE_IMAGES)
        job = ExtractionJob(self.backbone, device, [top], sample, len(rows))
        frozen = FrozenPart(self.backbone, device, choose_engine(job, self.recipe.engine, self.cache).engine)
        advance = self.bar(f"extract features of {formats.count(len(rows), 'image')}")
        kept = FeatureCache(self.cache, "float16", self.recipe.cache_bytes)
        return pooled_features(pixels, rows, frozen, self.recipe.seed, kept, advance)


def make_queue(folder: ImageFolder, number: int, extraction: Extraction) -> LabelQueue:
    """Decide which images of a folder to label next.

    Args:
        folder: The images and the labels so far.
        number: How many images are wanted.
        extraction: How their features are extracted.

    Raises:
        DataError: No image can be read, or every label conflicts with another.
    """
    pixels = extraction.decode(folder.manifest)
    manifest = pixels.describe(folder.manifest)
    found = find_duplicates(manifest, pixels, extraction.bar("find near-duplicates"))
    pairs = [(pair.first, pair.second) for pair in found]
    candidates = find_candidates(manifest, pairs)
    rows = np.array([*candidates.labelled, *candidates.waiting], int)
    if not len(rows):
        failed = formats.count(len(candidates.errors), "image")
        raise DataError(
            f"{manifest.root}: no image to choose from: the {failed} have conflicting labels or cannot be read"
        )
    values = extraction.extract(pixels, rows)
    classes = np.full(len(rows), UNLABELLED)
    labelled = len(candidates.labelled)
    names, paths = manifest.column("labels"), manifest.column("path")
    classes[:labelled] = [manifest.classes.index(names[row][0]) for row in candidates.labelled]
    pool = Pool(values, classes, extraction.recipe.seed)
    with one_thread():
        order = order_images(pool, number)
        outlook = look_ahead(standardised(values), pool) if len(pool.present) > 1 else None
    return LabelQueue(
        folder=manifest.root,
        images=_images(order, [paths[row] for row in rows], manifest.classes),
        errors=candidates.errors,
        labelled=labelled,
        waiting=len(candidates.waiting),
        duplicates=candidates.duplicates,
        strategy=order.strategy.why,
        outlook=outlook,
        notes=(*folder.notes, *pixels.notes()),
    )


def _images(order: Order, paths: list[str], classes: tuple[str, ...]) -> tuple[QueuedImage, ...]:
    """The choices with their paths, and what the head suggests for each."""
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(c.cluster for c in order.choices), 1)}
    images = []
    for rank, choice in enumerate(order.choices, start=1):
        suggested, confidence = None, None
        if order.suggested is not None and order.confidence is not None:
            suggested = classes[order.suggested[choice.position]]
            confidence = float(order.confidence[choice.position])
        images.append(
            QueuedImage(
                paths[choice.position], rank, numbers[choice.cluster], order.strategy.reason, suggested, confidence
            )
        )
    return tuple(images)
