"""A finished run as an update needs it: its classifier, and the features of its images in the cache.

What lies below the cut that the run kept has never been trained, so the features that it extracted are those of its
classifier still. Replaying them in place of the images is latent replay (Pellegrini et al. 2020, arXiv 1912.01100).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from thaw.backbones.contract import Backbone
from thaw.bundle import certified_bundle, digest_of
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier
from thaw.cores import worker_count
from thaw.data.decoding import Decoding
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore, key_of_store
from thaw.device import choose_device
from thaw.errors import DataError
from thaw.features.cache import CachedFeatures, FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract, find_features
from thaw.features.view_request import ViewDescription, ViewRequest
from thaw.formats import count
from thaw.planning.baseline import baseline_recipe
from thaw.progress import Reporter
from thaw.recipe import ResolvedPhase, ResolvedRecipe
from thaw.run_folder import ImagesPart, PlanFile, RunFolder
from thaw.seeds import derive_seed
from thaw.training.baseline import keeps_baseline
from thaw.training.gain import KeepRule, kept_record, phase_gains
from thaw.training.phases import PLAIN, input_plans


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        folder: Where it is; only read.
        plan: Its plan.
        recipe: With the phase that trains the head, if there is one, and the one that was kept; of an update with all.
        manifest: Its images with their splits.
        classifier: Its classifier, on the device of the recipe.
        cut: The cut at which the features of all images are.
        parts: Which of its images were extracted together.
        bundle: SHA-256 of its bundle.
        is_update: Whether it is an update itself.
    """

    folder: RunFolder
    plan: PlanFile
    recipe: ResolvedRecipe
    manifest: Manifest
    classifier: Classifier
    cut: str
    parts: tuple[ImagesPart, ...]
    bundle: str
    is_update: bool

    @classmethod
    def read(cls, folder: RunFolder) -> StoredRun:
        """Read a finished run; raises `DataError` where it is none, or has nothing frozen to replay."""
        plan, recipe, update = RunFolder.at(folder.path).read_plan(), folder.read_recipe(), folder.read_update()
        if plan is None or not folder.model.is_dir():
            raise DataError(f"{folder.path}: has no plan or no bundle any more; restore the folder")
        classifier, manifest = certified_bundle(folder.model), Manifest.read(folder.manifest)
        if not len(manifest.indices("val")):
            raise DataError(f"{folder.path}: was trained on its validation images, so no update of it could be judged")
        backbone, kept, phases = classifier.backbone, _kept_phase(folder, plan, recipe), recipe.phases
        if keeps_baseline(plan.gains):
            recipe = baseline_recipe(recipe)
            kept = recipe.phases[0]
        if backbone.cut(kept.cut).position == 0:
            raise DataError(
                f"{folder.path}: trained every layer (phase {kept.name}), so it has no frozen part whose features stay "
                "valid; train a new run on all images"
            )
        cut = update.cut if update else _lowest_cut(folder, (kept, *phases), backbone)
        # Another version of Pillow, with which the key would be another one, leaves the features as they are.
        key = plan.pixels or key_of_store(manifest, backbone.facts.pixels, recipe.decode)
        classifier.backbone.use_memory_format(recipe.memory_format)
        return cls(
            folder=folder,
            plan=plan,
            recipe=recipe if update else recipe.model_copy(update={"phases": _phases(recipe, kept)}),
            manifest=manifest,
            classifier=classifier.to(choose_device(recipe.device).device),
            cut=cut,
            parts=update.parts if update else (ImagesPart(len(manifest), key),),
            bundle=digest_of(folder.model),
            is_update=update is not None,
        )

    @property
    def position(self) -> int:
        """The position of the cut."""
        return self.classifier.backbone.cut(self.cut).position

    @cached_property
    def frozen(self) -> FrozenPart:
        """What is below the cut, which an update does not change, with the engine of the run."""
        return FrozenPart(self.classifier.backbone, self.classifier.device, self.recipe.engine)

    @property
    def cache(self) -> FeatureCache:
        """The feature cache as the run used it."""
        return FeatureCache(cache_folder(), self.recipe.cache_dtype, self.recipe.cache_bytes)

    def views(self, pixels: str, rows: np.ndarray, split: str) -> ViewDescription:
        """The views of rows (N,) of a pixel store that serve a split: augmented for training, else plain."""
        plan = input_plans(self.recipe)[-1]
        spec, seed = self.classifier.backbone.facts.pixels, derive_seed(self.recipe.seed, "views")
        if split != "train":
            return ViewDescription(pixels, spec, rows, range(1), PLAIN, seed)
        return ViewDescription(pixels, spec, rows, range(max(plan.views, 1)), plan.augmentation, seed)

    def features(self, split: str, reporter: Reporter) -> list[CachedFeatures]:
        """The features of a split, part by part; those that the cache lacks are extracted from the images again.

        Raises:
            DataError: The cache lacks them, and the images are gone or were changed.
        """
        return [self._features(part, rows, split, reporter) for part, rows in self._rows_of_parts(split) if len(rows)]

    def old_pixels(self) -> list[PixelStore] | None:
        """The decoded images of every part, from the cache; `None` where it lacks any."""
        spec, cache = self.classifier.backbone.facts.pixels, cache_folder()
        stores = [PixelStore.find(part.pixels, spec, cache) for part in self.parts]
        return None if None in stores else [store for store in stores if store]

    def _rows_of_parts(self, split: str) -> Iterator[tuple[tuple[int, ImagesPart], np.ndarray]]:
        """Each part with its first row, and its rows of a split, counted from that."""
        rows, start = self.manifest.indices(split), 0
        for part in self.parts:
            own = rows[(rows >= start) & (rows < start + part.images)] - start
            yield (start, part), own
            start += part.images

    def _features(
        self, place: tuple[int, ImagesPart], rows: np.ndarray, split: str, reporter: Reporter
    ) -> CachedFeatures:
        (start, part), frozen = place, self.frozen
        views = self.views(part.pixels, rows, split)
        if (found := find_features(views, frozen, self.position, self.cache)) is not None:
            return found
        pixels = self._pixels_again(start, part, reporter)
        request = ViewRequest(pixels, rows, len(views.numbers), views.augmentation, views.seed)
        bar = reporter.bar(f"extract features of {split} again")
        return extract(request, frozen, [self.position], self.cache, bar)[self.position]

    def _pixels_again(self, start: int, part: ImagesPart, reporter: Reporter) -> PixelStore:
        """The pixels of a part, from the cache or else from its images."""
        spec, cache = self.classifier.backbone.facts.pixels, cache_folder()
        if store := PixelStore.find(part.pixels, spec, cache):
            return store
        manifest = replace(self.manifest, table=self.manifest.table.slice(start, part.images))
        # What could not be read then was not learnt from.
        readable = np.flatnonzero([status == "ok" for status in manifest.column("status")])
        gone = sum(not manifest.file(int(row)).is_file() for row in readable)
        if not gone:
            settings = self.recipe.decode.model_copy(update={"strict": False})
            store = PixelStore.open_or_build(manifest, Decoding(spec, settings, worker_count()), cache, reporter.bar)
            then, now = manifest.column("sha256"), store.describe(manifest).column("sha256")
            if all(then[row] == now[row] for row in readable):
                return store
        problem = f"{gone:,} of {count(part.images, 'image')} are gone" if gone else "the images were changed"
        raise DataError(
            f"{self.folder.path}: the features of its images are not in the cache {cache}, and {problem}; set "
            f"THAW_CACHE to the cache that it was trained with, or restore the images under {self.manifest.root}"
        )


def _kept_phase(folder: RunFolder, plan: PlanFile, recipe: ResolvedRecipe) -> ResolvedPhase:
    """The phase whose weights a run keeps; the first one for a baseline."""
    records, rule = folder.read_epochs(), KeepRule(recipe.monitor, 1, recipe.keep_phase)
    kept = kept_record(records, plan.gains or phase_gains(records, rule), recipe.monitor)
    return next((phase for phase in recipe.phases if kept and phase.name == kept.phase), recipe.phases[0])


def _phases(recipe: ResolvedRecipe, kept: ResolvedPhase) -> tuple[ResolvedPhase, ...]:
    """The phase that trains the head, and the one that is kept if it trains more."""
    head = next((phase for phase in recipe.phases if phase.cut == "head"), None)
    return tuple(dict.fromkeys(phase for phase in (head, kept) if phase))


def _lowest_cut(folder: RunFolder, phases: Sequence[ResolvedPhase], backbone: Backbone) -> str:
    """The lowest cut at which a run has cached features, which is where its test images were extracted too.

    The first of the phases is the one that is kept.
    """
    trained = {record.phase for record in folder.read_epochs()}
    cuts = [phase.cut for phase in phases if phase.inputs == "cached" and phase.name in trained]
    return min([phases[0].cut, *cuts], key=lambda cut: backbone.cut(cut).position)
