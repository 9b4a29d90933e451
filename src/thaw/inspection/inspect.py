"""Everything that one look at a data set tells before any training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from thaw.backbones.contract import Backbone
from thaw.data.manifest import SPLITS, Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.split import groups_of
from thaw.device import choose_device, worker_count
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, Bar, plain_sample, pooled_features
from thaw.features.probe import choose_engine
from thaw.inspection import linear_probe as probing
from thaw.inspection.health import Flag, find_flags
from thaw.inspection.linear_probe import Features, LabelError, LearningCurve, LinearProbe, Outlier
from thaw.inspection.similarity import SAMPLE, Similarity, measure_similarity
from thaw.recipe import Recipe


@dataclass(frozen=True)
class DuplicatePair:
    """Two rows that show the same picture; `exact` where their files are equal, byte for byte."""

    first: int
    second: int
    agreement: float
    exact: bool


@dataclass(frozen=True)
class Leak:
    """Pictures that stand in two of the given splits, and what that does to a linear head.

    accuracy: on the later split as it is, after fitting on train; accuracy_without: on those of its images that have no
    twin in train. Both `None` where the earlier split is not train, or a side is empty.
    """

    splits: tuple[str, str]
    duplicates: tuple[DuplicatePair, ...]
    accuracy: float | None
    accuracy_without: float | None


@dataclass(frozen=True)
class Place:
    """Where an image lies on the map, in 0..1 from the top left."""

    row: int
    x: float
    y: float


@dataclass(frozen=True)
class Inspection:
    """What was found; rows are those of `manifest`. What cannot be measured on this set is `None` or empty."""

    manifest: Manifest
    notes: tuple[str, ...]
    flags: tuple[Flag, ...]
    duplicates: tuple[DuplicatePair, ...]
    leaks: tuple[Leak, ...]
    similarity: Similarity
    probe: LinearProbe | None
    label_errors: tuple[LabelError, ...]
    outliers: tuple[Outlier, ...]
    curve: LearningCurve | None
    places: tuple[Place, ...]
    backbone: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Readable images of each class: {class: {split: images}}, under "all" where the data brings no splits."""
        labels, splits = self.manifest.column("labels"), self.manifest.column("split")
        status = self.manifest.column("status")
        found: dict[str, Counter[str]] = {name: Counter() for name in self.manifest.classes}
        for names, split, state in zip(labels, splits, status, strict=True):
            for name in names if state == "ok" else ():
                found[name][split or "all"] += 1
        return {name: dict(count) for name, count in found.items()}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the data brings, in their order; "all" stands for images without one."""
        counts = self.counts().values()
        return tuple(name for name in (*SPLITS, "all") if any(name in count for count in counts))

    @property
    def conflicting_labels(self) -> tuple[DuplicatePair, ...]:
        """The same picture under two labels."""
        labels = self.manifest.column("labels")
        return tuple(pair for pair in self.duplicates if set(labels[pair.first]) != set(labels[pair.second]))


def inspect_images(
    recipe: Recipe, manifest: Manifest, pixels: PixelStore, backbone: Backbone, cache: Path, bar: Bar
) -> Inspection:
    """Look at every readable image of a decoded manifest once, as it is, and measure what its features tell."""
    rows = np.flatnonzero([status == "ok" for status in manifest.column("status")])
    duplicates = _duplicates(manifest, pixels, bar)
    device = choose_device(recipe.device).device
    backbone.to(device)
    plain = plain_sample(pixels, rows, SAMPLE)
    values = _look(recipe, pixels, rows, backbone, plain, device, cache, bar)
    found = Inspection(
        manifest=manifest,
        notes=pixels.notes(),
        flags=find_flags(pixels, manifest, rows.tolist(), worker_count()),
        duplicates=duplicates,
        leaks=(),
        similarity=measure_similarity(backbone, plain),
        probe=None,
        label_errors=(),
        outliers=(),
        curve=None,
        places=(),
        backbone=f"{backbone.facts.architecture}, {backbone.facts.origin}",
    )
    features = Features(
        rows,
        values,
        _classes(manifest, rows),
        groups_of(manifest, rows, [(pair.first, pair.second) for pair in duplicates]),
    )
    with probing.one_thread():
        return _with_features(found, features, bar)


def _with_features(found: Inspection, features: Features, bar: Bar) -> Inspection:
    """What is read from features; one label an image is needed for most of it."""
    advance = bar("ask the features")
    outliers = probing.find_outliers(features)
    advance(1, 4)
    shown, places = probing.project(features)
    advance(2, 4)
    found = replace(
        found,
        outliers=outliers,
        places=tuple(
            Place(int(features.rows[index]), float(x), float(y)) for index, (x, y) in zip(shown, places, strict=True)
        ),
    )
    probe = probing.probe(features) if found.manifest.task != "multilabel" else None
    advance(3, 4)
    if probe:
        label_errors, curve = probing.find_label_errors(features, probe), probing.learning_curve(features)
        found = replace(found, probe=probe, label_errors=label_errors, curve=curve)
    found = replace(found, leaks=tuple(_leaks(found, features if probe else None)))
    advance(4, 4)
    return found


def _look(
    recipe: Recipe,
    pixels: PixelStore,
    rows: np.ndarray,
    backbone: Backbone,
    plain: torch.Tensor,
    device: torch.device,
    cache: Path,
    bar: Bar,
) -> np.ndarray:
    """Pooled features (N, C) float32 of the plain views."""
    top = backbone.head_position
    probe = choose_engine(backbone, device, recipe.engine, [top], plain[:PROBE_IMAGES], len(rows), cache)
    frozen = FrozenPart(backbone, device, probe.engine)
    return pooled_features(pixels, rows, frozen, recipe.seed, cache, bar(f"look once at {len(rows)} images"))


def _duplicates(manifest: Manifest, pixels: PixelStore, bar: Bar) -> tuple[DuplicatePair, ...]:
    """Near-duplicates and equal files; blank pictures count only where their files are equal."""
    digests = manifest.column("sha256")
    same: defaultdict[str, list[int]] = defaultdict(list)
    for row, (digest, status) in enumerate(zip(digests, manifest.column("status"), strict=True)):
        if status == "ok":
            same[digest].append(row)
    pairs = {(one, other): 1.0 for rows in same.values() for one, other in combinations(rows, 2)}
    for pair in pixels.duplicates(worker_count(), bar("look for near-duplicates")):
        pairs.setdefault((pair.first, pair.second), pair.correlation)
    return tuple(
        DuplicatePair(one, other, agreement, digests[one] == digests[other])
        for (one, other), agreement in sorted(pairs.items())
    )


def _classes(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """One class index a row; of several labels the first, which only the map shows."""
    place = {name: index for index, name in enumerate(manifest.classes)}
    labels = manifest.column("labels")
    return np.array([place[labels[row][0]] if labels[row] else 0 for row in rows])


def _leaks(found: Inspection, features: Features | None) -> list[Leak]:
    splits = found.manifest.column("split")
    across: defaultdict[tuple[str, str], list[DuplicatePair]] = defaultdict(list)
    for pair in found.duplicates:
        one, other = splits[pair.first], splits[pair.second]
        if one and other and one != other:
            first, second = sorted((one, other), key=SPLITS.index)
            across[first, second].append(pair)
    return [Leak(names, tuple(pairs), *_worth(names, pairs, splits, features)) for names, pairs in across.items()]


def _worth(
    names: tuple[str, str], pairs: Sequence[DuplicatePair], splits: Sequence[str | None], features: Features | None
) -> tuple[float | None, float | None]:
    """Accuracy on the later split with and without the images that stand in train too."""
    if features is None or names[0] != "train":
        return None, None
    given = np.array([splits[row] for row in features.rows])
    leaked = np.isin(features.rows, [row for pair in pairs for row in (pair.first, pair.second)])
    train, test, clean = given == names[0], given == names[1], (given == names[1]) & ~leaked
    if not clean.any() or len(np.unique(features.classes[train])) < 2:
        return None, None
    head = probing.fit_head(features.values[train], features.classes[train])
    return (
        float(head.score(features.values[test], features.classes[test])),
        float(head.score(features.values[clean], features.classes[clean])),
    )
