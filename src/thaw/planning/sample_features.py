"""The features of a sample of the training images, on which the plan measures settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.backbones.contract import Backbone
from thaw.data.augment import Augmentation
from thaw.data.prepare import Prepared
from thaw.features.engines import FrozenPart
from thaw.features.pooled import features_of_view
from thaw.features.view_request import ViewRequest
from thaw.planning.measurements import Measurements
from thaw.progress import Bar
from thaw.recipe import Recipe
from thaw.seeds import derive_seed
from thaw.selection.sample import Sample, draw_sample


@dataclass(frozen=True)
class SampleFeatures:
    """Features of all stages of a sample, extracted view by view into the cache.

    whole: whether plain views of all training images are extracted at once, which the run trains with soon after.
    """

    prepared: Prepared
    sample: Sample
    frozen: FrozenPart
    seed: int
    cache: Path
    bar: Bar
    whole: bool = False

    def of(self, augmentation: Augmentation) -> np.ndarray:
        """The features (N, D) float32 of the plain view, or of the first view of an augmentation."""
        if augmentation.changes:
            return self._view(self.sample.rows, augmentation, 1)
        rows = self.prepared.manifest.indices("train") if self.whole else self.sample.rows
        return self._view(rows, augmentation, 0)[np.searchsorted(rows, self.sample.rows)]

    def _view(self, rows: np.ndarray, augmentation: Augmentation, number: int) -> np.ndarray:
        request = ViewRequest(self.prepared.pixels, rows, 1, augmentation, self.seed, number)
        return features_of_view(request, self.frozen, self.cache, self.bar("measure settings"))


def sample_features(
    recipe: Recipe,
    measured: Measurements,
    prepared: Prepared,
    backbone: Backbone,
    cache: Path,
    bar: Bar,
    whole: bool = False,
) -> SampleFeatures:
    """A sample of the training images, and what extracts its features; of all stages, where there are any."""
    backbone.use_features("all" if backbone.has_stages else "last")
    sample = draw_sample(prepared.manifest, prepared.duplicates, recipe.seed)
    frozen = FrozenPart(backbone, measured.device.device, measured.engine.engine)
    return SampleFeatures(prepared, sample, frozen, derive_seed(recipe.seed, "views"), cache, bar, whole)
