"""Whether another image size is better, measured on a part of the sample, and whether long images are squashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from thaw.backbones import build
from thaw.cores import worker_count
from thaw.data.decoding import Decoding
from thaw.data.pixel_store import PixelStore
from thaw.errors import BackboneError
from thaw.features.engines import FrozenPart
from thaw.features.pooled import pooled_features
from thaw.planning.sample_features import SampleFeatures
from thaw.recipe import PreprocessingSettings, Recipe
from thaw.selection.sample import stratified_choice
from thaw.selection.select import OtherPreprocessing, Selection

IMAGES = 400
"""Images of the sample on which sizes are compared."""

START_SECONDS = 3.0
"""What decoding and an engine for another size take besides the images themselves."""

ELONGATED = 1.25
"""Median ratio of the sides from which images count as elongated, so that a centre crop may miss the defect."""


def ask_crop(selection: Selection, recipe: Recipe, features: SampleFeatures) -> bool:
    """Compare squashing elongated images with the crop that the network was trained with; gives whether it is better.

    A centre crop may miss the defect: of images of 4:3 and a crop of 0.875 it leaves two thirds of the width.
    """
    trained_at = features.frozen.backbone.facts.pixels
    if recipe.preprocessing.crop_mode or trained_at.crop_mode == "squash" or not _is_elongated(features):
        return False
    options = {"squash": {"crop_mode": "squash"}}
    return _ask("preprocessing.crop_mode", trained_at.crop_mode, options, selection, recipe, features)


def ask_image_size(selection: Selection, recipe: Recipe, features: SampleFeatures) -> None:
    """Compare image sizes with the one that the network was trained at."""
    trained_at = features.frozen.backbone.facts.pixels
    sizes = [size for size in recipe.measure.image_sizes if size != trained_at.size]
    options = {f"{size} px": {"image_size": size} for size in sizes}
    _ask("preprocessing.image_size", f"{trained_at.size} px", options, selection, recipe, features)


def _ask(
    setting: str,
    trained_at: str,
    options: Mapping[str, dict[str, Any]],
    selection: Selection,
    recipe: Recipe,
    features: SampleFeatures,
) -> bool:
    """Whether one of other preprocessings, by their names, is better than what the network was trained with.

    Those are compared that there is time for; only a gain of more than one standard error makes one better.
    """
    size, chosen, others = features.frozen.backbone.facts.pixels.size, _subset(features, recipe.seed), []
    for name, change in options.items():
        pixels_ratio = (change.get("image_size", size) / size) ** 2
        if not selection.allows_images(len(chosen), pixels_ratio, START_SECONDS):
            continue
        try:
            found = _other_features(features, recipe, change, chosen)
        except BackboneError:
            # A network that supports one size only.
            continue
        changes = {f"preprocessing.{key}": value for key, value in change.items()}
        others.append(OtherPreprocessing(name, changes, found))
    return bool(others) and selection.ask_preprocessing(setting, trained_at, others, chosen)


def _subset(features: SampleFeatures, seed: int) -> np.ndarray:
    """Positions in the sample."""
    sample = features.sample
    if len(sample.rows) <= IMAGES:
        return np.arange(len(sample.rows))
    return stratified_choice(sample.strata, IMAGES, np.random.default_rng(seed))


def _is_elongated(features: SampleFeatures) -> bool:
    facts = features.prepared.pixels.facts
    sides = np.array([facts.column(name).to_numpy() for name in ("width", "height")])[:, features.sample.rows]
    return bool(np.median(sides.max(axis=0) / sides.min(axis=0)) > ELONGATED)


def _other_features(features: SampleFeatures, recipe: Recipe, change: dict[str, Any], chosen: np.ndarray) -> np.ndarray:
    """Features (M, W) of some images of the sample with another preprocessing."""
    wanted = PreprocessingSettings(**{**recipe.preprocessing.model_dump(), **change})
    backbone = build(recipe.model_copy(update={"preprocessing": wanted}))
    backbone.use_features(backbone.widest_features)
    frozen = FrozenPart(backbone.to(features.frozen.device), features.frozen.device, features.frozen.engine)
    manifest = features.prepared.manifest
    part = replace(manifest, table=manifest.table.take(features.sample.rows[chosen]))
    spec = backbone.facts.pixels
    pixels = PixelStore.open_or_build(
        part, Decoding(spec, recipe.decode, worker_count()), features.cache.folder, features.bar
    )
    bar = features.bar(f"measure {spec.size} px")
    return pooled_features(pixels, np.arange(len(chosen)), frozen, features.seed, features.cache, bar)
