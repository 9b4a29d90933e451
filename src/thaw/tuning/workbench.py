"""What all trials of a search share: the images with their splits, the sample and its folds, and networks in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.cache import cache_folder
from thaw.cores import worker_count
from thaw.data.augment import Augmentation
from thaw.data.decoding import Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import Prepared
from thaw.errors import DataError
from thaw.evaluation.evaluate import bootstrap_groups
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, features_of_view, plain_sample
from thaw.features.timed_part import timed_part
from thaw.features.view_request import ViewRequest
from thaw.inspection.linear_probe import TOO_FEW
from thaw.planning.across import across_groups
from thaw.progress import Reporter
from thaw.recipe import Monitor, Recipe
from thaw.seeds import derive_seed
from thaw.selection.sample import Sample, draw_sample

MAX_IMAGES = 1_000
"""Training images that cheap trials are cross-validated on."""


@dataclass(frozen=True)
class Network:
    """A network with a preprocessing, and the sample's images for it.

    Attributes:
        frozen: The network with its engine; its features are those of all stages, where it has any.
        pixels: Decoded images.
        rows: (N,) int, those of the sample.
        val_rows: (M,) int, those of validation.
        latency_ms: Median time for one image.
    """

    frozen: FrozenPart
    pixels: PixelStore
    rows: np.ndarray
    val_rows: np.ndarray
    latency_ms: float
    _views: dict[tuple[str, Augmentation, int], np.ndarray] = field(default_factory=dict)

    @property
    def backbone(self) -> Backbone:
        """The network."""
        return self.frozen.backbone


@dataclass(frozen=True)
class Workbench:
    """What all trials share.

    Attributes:
        base: The recipe that trials change.
        prepared: The images with their splits, as the plan's network takes them.
        weights: The weights of each network to choose from, by name.
        monitor: The metric that is maximized.
        sample: Training images that cheap trials are cross-validated on.
        folds: (N,) int, the fold of each of them, -1 for none.
        cache: Folder of the caches.
        reporter: Shows progress.
    """

    base: Recipe
    prepared: Prepared
    weights: Mapping[str, str]
    monitor: Monitor
    sample: Sample
    folds: np.ndarray
    cache: Path
    reporter: Reporter
    _networks: dict[str, Network] = field(default_factory=dict)

    @classmethod
    def of(
        cls, base: Recipe, prepared: Prepared, weights: Mapping[str, str], monitor: Monitor, reporter: Reporter
    ) -> Workbench:
        """For a plan; raises `DataError` where there are too few images to cross-validate."""
        sample = draw_sample(prepared.manifest, prepared.duplicates, base.seed, MAX_IMAGES)
        folds = sample.folds()
        if folds is None:
            raise DataError(f"search: cannot compare recipes, because {TOO_FEW}; add images")
        if sample.why_few_folds:
            reporter.say(f"trials of heads: {sample.why_few_folds}")
        return cls(base, prepared, weights, monitor, sample, folds, cache_folder(), reporter)

    def across_groups(self, recipe: Recipe) -> Workbench:
        """The same with folds across groups, or across scenes found by a network, where there are enough of them."""
        network = self.network(recipe)
        plain = self.features(network, Augmentation(), 0)
        found = across_groups(self.prepared, self.sample, plain, network.backbone.feature_groups)
        if found is None:
            return self
        return replace(self, folds=found.numbers, sample=replace(self.sample, units=found.groups))

    @property
    def tested(self) -> np.ndarray:
        """(N,) bool, which images of the sample are in a fold."""
        return self.folds >= 0

    @cached_property
    def val_units(self) -> np.ndarray:
        """(N,) int, equal for validation images that are no independent evidence."""
        manifest = self.prepared.manifest
        rows = manifest.indices("val")
        groups = bootstrap_groups(manifest, rows, self.prepared.duplicates)
        return np.arange(len(rows)) if groups is None else groups

    def network(self, recipe: Recipe) -> Network:
        """The network of a recipe; the last ones are kept. Raises `BackboneError`."""
        key = repr((recipe.backbone, recipe.weights, recipe.preprocessing))
        if key not in self._networks:
            if len(self._networks) >= 2:
                self._networks.pop(next(iter(self._networks)))
            self._networks[key] = self._built(recipe)
        return self._networks[key]

    def features(self, network: Network, augmentation: Augmentation, view: int) -> np.ndarray:
        """Features of all stages of one view of the sample, (N, W) float32; view 0 is the plain one."""
        return self._extracted(network, "train", augmentation, view)

    def val_features(self, network: Network) -> np.ndarray:
        """Features of all stages of the plain view of the validation images, (M, W) float32."""
        return self._extracted(network, "val", Augmentation(), 0)

    def _extracted(self, network: Network, split: str, augmentation: Augmentation, view: int) -> np.ndarray:
        key = (split, augmentation, view)
        if key not in network._views:
            seed, rows = derive_seed(self.base.seed, "views"), network.val_rows if split == "val" else network.rows
            request = ViewRequest(network.pixels, rows, 1, augmentation, seed, view)
            cache = FeatureCache(self.cache, "float16", self.base.cache_bytes)
            bar = self.reporter.bar("extract features")
            # A trial may be in the middle of a head that takes fewer.
            with network.backbone.taking(network.backbone.widest_features):
                network._views[key] = features_of_view(request, network.frozen, cache, bar)
        return network._views[key]

    def prepared_for(self, spec: PixelSpec) -> Prepared:
        """All images with the same splits, as a network takes them."""
        if spec == self.prepared.pixels.spec:
            return self.prepared
        return replace(self.prepared, pixels=self._decoded(self.prepared.manifest, spec))

    def _built(self, recipe: Recipe) -> Network:
        backbone = build(recipe)
        pixels, rows, val_rows = self._sampled(backbone.facts.pixels)
        timed = timed_part(backbone, recipe, plain_sample(pixels, rows, PROBE_IMAGES), len(rows), self.cache)
        return Network(timed.frozen, pixels, rows, val_rows, timed.latency_ms)

    def _sampled(self, spec: PixelSpec) -> tuple[PixelStore, np.ndarray, np.ndarray]:
        """Decoded images, with the rows of the sample and of validation: all, as training reads them, or just these."""
        manifest, rows = self.prepared.manifest, self.sample.rows
        val = manifest.indices("val")
        if spec == self.prepared.pixels.spec or len(rows) == len(manifest.indices("train")):
            return self.prepared_for(spec).pixels, rows, val
        both = np.concatenate([rows, val])
        pixels = self._decoded(replace(manifest, table=manifest.table.take(both)), spec)
        return pixels, np.arange(len(rows)), np.arange(len(rows), len(both))

    def _decoded(self, manifest: Manifest, spec: PixelSpec) -> PixelStore:
        bar, settings = self.reporter.bar, self.base.decode
        return PixelStore.open_or_build(manifest, Decoding(spec, settings, worker_count()), self.cache, bar)
