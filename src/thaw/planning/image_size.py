"""Whether another image size is better, measured on a part of the sample."""

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
from thaw.selection.sample import Sample, stratified_choice
from thaw.selection.select import OtherPreprocessing, Selection

IMAGES = 400
"""Images of the sample on which preprocessings are compared."""

START_SECONDS = 3.0
"""What decoding and an engine for another preprocessing take besides the images themselves."""


def ask_image_size(selection: Selection, recipe: Recipe, features: SampleFeatures) -> None:
    """Compare image sizes with the one that the network was trained at.

    Those are compared that there is time for; only a gain of more than one standard error makes one better.
    """
    size, chosen, others = features.frozen.backbone.facts.pixels.size, part_of(features.sample, recipe.seed), []
    for other in recipe.measure.image_sizes:
        if other == size or not selection.allows_images(len(chosen), (other / size) ** 2, START_SECONDS):
            continue
        change = {"image_size": other}
        try:
            found = other_features(features, recipe, change, chosen)
        except BackboneError:
            # A network that supports one size only.
            continue
        others.append(OtherPreprocessing(f"{other} px", {"preprocessing.image_size": other}, found))
    if others:
        selection.ask_preprocessing("preprocessing.image_size", f"{size} px", others, chosen)


def part_of(sample: Sample, seed: int) -> np.ndarray:
    """Positions in the sample of the images on which preprocessings are compared."""
    if len(sample.rows) <= IMAGES:
        return np.arange(len(sample.rows))
    return stratified_choice(sample.strata, IMAGES, np.random.default_rng(seed))


def other_features(
    features: SampleFeatures, recipe: Recipe, change: Mapping[str, Any], chosen: np.ndarray
) -> np.ndarray:
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
