"""The features of a sample of the training images, on which the plan measures settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.data.augment import Augmentation
from thaw.data.prepare import Prepared
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import features_of_view
from thaw.features.view_request import ViewRequest
from thaw.progress import Bar
from thaw.selection.sample import Sample


@dataclass(frozen=True)
class SampleFeatures:
    """Features of all stages of a sample, extracted view by view into the cache.

    whole: whether plain views of all training images are extracted at once, which the run trains with soon after.
    """

    prepared: Prepared
    sample: Sample
    frozen: FrozenPart
    seed: int
    cache: FeatureCache
    bar: Bar
    whole: bool = False

    def of(self, augmentation: Augmentation) -> np.ndarray:
        """The features (N, D) float32 of the plain view, or of the first view of an augmentation."""
        is_whole = self.whole and not augmentation.changes
        rows = self.prepared.manifest.indices("train") if is_whole else self.sample.rows
        request = ViewRequest(self.prepared.pixels, rows, 1, augmentation, self.seed, int(augmentation.changes))
        chosen = np.searchsorted(rows, self.sample.rows)
        return features_of_view(request, self.frozen, self.cache, self.bar("measure settings"), chosen)
