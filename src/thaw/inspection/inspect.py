"""Everything that features of a pre-trained backbone tell about a data set before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw import formats
from thaw.backbones.contract import Backbone
from thaw.cores import worker_count
from thaw.data.group_split import with_enough_groups
from thaw.data.groups import Grouped
from thaw.data.manifest import SPLITS, Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.split_units import groups_of
from thaw.device import choose_device
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, plain_sample, pooled_features
from thaw.features.probe import ExtractionJob, choose_engine
from thaw.inspection.duplicates import DuplicatePair, Leak, find_duplicates, find_leaks
from thaw.inspection.image_quality import QualityFlag, find_quality_flags
from thaw.inspection.label_errors import LabelError, find_label_errors
from thaw.inspection.learning_curve import STEPS, LearningCurve, measure_learning_curve
from thaw.inspection.linear_probe import FOLDS, Features, LinearProbe, fit_probe, one_thread
from thaw.inspection.outliers import Outlier, find_outliers
from thaw.inspection.projection import MapPoint, project
from thaw.inspection.similarity import SAMPLE, Similarity, remembered_similarity
from thaw.progress import Bar, OnProgress
from thaw.recipe import Recipe

NO_LABEL = -1
"""The class of an image of multilabel data that has no label; such images are compared with each other."""


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection; rows are those of `manifest`, and whatever cannot be measured is `None` or empty.

    Attributes:
        notes: What decoding changed, for example clipped 16-bit images.
        groups: What the groups of images are, in sentences; empty without groups, or where the data give them.
        backbone: Architecture and origin of its weights.
    """

    manifest: Manifest
    notes: tuple[str, ...]
    groups: tuple[str, ...]
    backbone: str
    quality_flags: tuple[QualityFlag, ...]
    duplicates: tuple[DuplicatePair, ...]
    leaks: tuple[Leak, ...]
    similarity: Similarity
    probe: LinearProbe | None
    label_errors: tuple[LabelError, ...]
    outliers: tuple[Outlier, ...]
    curve: LearningCurve | None
    map_points: tuple[MapPoint, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Readable images of each class and given split: {class: {split: images}}, "all" for images without a split."""
        columns = (self.manifest.column(name) for name in ("labels", "split", "status"))
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.manifest.classes}
        for labels, split, status in zip(*columns, strict=True):
            for label in labels if status == "ok" else ():
                counts[label][split or "all"] += 1
        return {name: dict(count) for name, count in counts.items()}

    @property
    def splits(self) -> tuple[str, ...]:
        """The given splits that have images, in their order; "all" stands for images without a split."""
        counts = self.counts().values()
        return tuple(name for name in (*SPLITS, "all") if any(name in count for count in counts))

    @property
    def conflicting_labels(self) -> tuple[DuplicatePair, ...]:
        """Duplicate pairs with different labels."""
        labels = self.manifest.column("labels")
        return tuple(pair for pair in self.duplicates if set(labels[pair.first]) != set(labels[pair.second]))


def inspect_images(
    recipe: Recipe, grouped: Grouped, pixels: PixelStore, backbone: Backbone, cache: Path, bar: Bar
) -> Inspection:
    """Extract features of every readable image once, and measure what they tell about the data.

    Args:
        recipe: Device, engine and seed to extract features with.
        grouped: Decoded images and their groups.
        pixels: The decoded images.
        backbone: Backbone that extracts the features.
        cache: Folder of the feature cache.
        bar: Opens a progress bar with a title.
    """
    manifest = grouped.manifest
    rows = np.flatnonzero([status == "ok" for status in manifest.column("status")])
    duplicates = find_duplicates(manifest, pixels, bar("find near-duplicates"))
    pairs = [(pair.first, pair.second) for pair in duplicates]
    divisible, few = with_enough_groups(manifest, rows.tolist(), pairs, FOLDS)
    groups = groups_of(divisible, rows, pairs)

    device, top = choose_device(recipe.device).device, backbone.head_position
    backbone.to(device)
    sample = plain_sample(pixels, rows, SAMPLE)
    job = ExtractionJob(backbone, device, [top], sample[:PROBE_IMAGES], len(rows))
    frozen = FrozenPart(backbone, device, choose_engine(job, recipe.engine, cache).engine)
    title = f"extract features of {formats.count(len(rows), 'image')}"
    kept = FeatureCache(cache, "float16", recipe.cache_bytes)
    values = pooled_features(pixels, rows, frozen, recipe.seed, kept, bar(title))
    features = Features(rows, values, class_indices(manifest, rows), groups)

    quality_flags = find_quality_flags(pixels, manifest, rows.tolist(), worker_count())
    similarity = remembered_similarity(backbone, sample, cache)
    step = _steps(len(np.unique(features.classes)) + 1 + FOLDS + STEPS + 1, bar("analyse features"))
    with one_thread():
        outliers = find_outliers(features, step)
        map_points = project(features)
        step()
        # A linear head needs exactly one label an image.
        probe = fit_probe(features, step) if manifest.task != "multilabel" else None
        label_errors = find_label_errors(features, probe) if probe else ()
        curve = measure_learning_curve(features, on_step=step) if probe else None
        leaks = find_leaks(duplicates, manifest.column("split"), features if probe else None)
        step(last=True)

    return Inspection(
        manifest=manifest,
        notes=pixels.notes(),
        groups=(*grouped.notes, *([_few_groups(few)] if few else ())),
        backbone=f"{backbone.facts.architecture}, {backbone.facts.origin}",
        quality_flags=quality_flags,
        duplicates=duplicates,
        leaks=leaks,
        similarity=similarity,
        probe=probe,
        label_errors=label_errors,
        outliers=outliers,
        curve=curve,
        map_points=map_points,
    )


def _steps(total: int, on_progress: OnProgress) -> Callable[..., None]:
    """Counts the steps of an analysis; what is left out is done with the last."""
    done = 0

    def step(last: bool = False) -> None:
        nonlocal done
        done = total if last else done + 1
        on_progress(done, total)

    return step


def _few_groups(classes: tuple[str, ...]) -> str:
    return f"fewer than {FOLDS} groups, so images are divided into folds one by one: {formats.listed(classes)}"


def class_indices(manifest: Manifest, rows: Iterable[int]) -> np.ndarray:
    """(N,) int, the class of each row; the first of several labels, and `NO_LABEL` for none."""
    index_of = {name: index for index, name in enumerate(manifest.classes)}
    labels = manifest.column("labels")
    return np.array([index_of[labels[row][0]] if labels[row] else NO_LABEL for row in rows])
