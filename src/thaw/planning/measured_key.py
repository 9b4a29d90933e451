"""What the measurements of a plan depend on, so that an answer is found again where nothing of it has changed."""

from __future__ import annotations

import hashlib

import numpy as np

from thaw.planning.measurements import Measurements
from thaw.planning.sample_features import SampleFeatures
from thaw.recipe import Recipe

MEASURED = "measured.json"
"""The file of the cache that remembers answers."""

_VERSION = 8
"""Of the questions: increases when their answers can change."""


def key_of(recipe: Recipe, measured: Measurements, features: SampleFeatures) -> str:
    """Hash of everything that answers depend on but the time for them."""
    sample, frozen = features.sample, features.frozen
    arrays = [np.ascontiguousarray(array).tobytes() for array in (sample.rows, sample.targets, sample.units)]
    groups = features.prepared.manifest.column("group")
    facts = (
        _VERSION,
        features.prepared.pixels.key,
        [hashlib.sha256(array).hexdigest() for array in arrays],
        hashlib.sha256(repr(groups).encode()).hexdigest(),
        frozen.digest(frozen.backbone.head_position),
        frozen.label,
        (measured.task, recipe.monitor, recipe.seed, recipe.class_weights),
        (recipe.head, recipe.augment, recipe.preprocessing, recipe.measure.image_sizes),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
