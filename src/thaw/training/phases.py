"""The inputs of each phase at its cut: cached features where the plan stores them, else new views in each epoch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from thaw.backbones.contract import Backbone
from thaw.data.augment import Augmentation, of_phase
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import LabelledRows
from thaw.features.cache import CachedFeatures, FeatureCache
from thaw.features.engines import REFERENCE, FrozenPart
from thaw.features.extract import extract
from thaw.features.passes import PassFromMaps, extracting_with
from thaw.features.view_request import ViewRequest
from thaw.formats import count
from thaw.processes import ALONE, Process
from thaw.progress import Bar
from thaw.recipe import Engine, Phase, Recipe
from thaw.training.sources import CachedSource, FreshSource, PhaseSources, Source

PLAIN = Augmentation()


@dataclass(frozen=True)
class InputPlan:
    """How a phase gets its inputs: `views` cached views of each image, or 0 for new views in each epoch."""

    phase: Phase
    augmentation: Augmentation
    views: int


@dataclass(frozen=True)
class EvaluationSources:
    """Inputs at the lowest cut that was trained, by split: "train" in one view of each image, others in plain views."""

    position: int
    of_split: Mapping[str, Source]


@dataclass(frozen=True)
class PhaseInputs:
    """Gives each phase its inputs; one extraction pass serves as many phases as possible.

    Test images are extracted at the lowest cut that was trained, once it is known.

    Attributes:
        plans: How each phase gets its inputs, in the order of the phases.
        engine: Runs the frozen part.
        seed: Of the views.
        bar: Makes a progress bar from its title.
        process: This process, if several extract together.
    """

    plans: tuple[InputPlan, ...]
    pixels: PixelStore
    backbone: Backbone
    engine: Engine
    train: LabelledRows
    val: LabelledRows
    test: LabelledRows
    cache: FeatureCache
    seed: int
    device: torch.device
    bar: Bar
    process: Process = ALONE

    def sources_of(self, index: int) -> PhaseSources:
        """Inputs of phase `index`, with the weights that the backbone has now."""
        plan, position, frozen = self.plans[index], self._position(index), self._frozen()
        request = self._request(index)
        if plan.views == 0:
            plain = replace(request, rows=self.val.rows, views=1, augmentation=PLAIN)
            fresh = FreshSource(request, frozen, position, self._targets(self.train), self.device)
            validated = FreshSource(plain, frozen, position, self._targets(self.val), self.device)
            return PhaseSources(fresh, validated if len(self.val.rows) else None)
        positions = [self._position(other) for other in self._served_with(index)]
        train = self._extract(request, frozen, positions)[position]
        if not len(self.val.rows):
            return PhaseSources(self._cached(train, self.train), None, partial(self._above, index, train, None))
        val = self._plain(self.val, frozen, positions)[position]
        sources = (self._cached(train, self.train), self._cached(val, self.val))
        return PhaseSources(*sources, partial(self._above, index, train, val))

    def _above(self, index: int, train: CachedFeatures, val: CachedFeatures | None, position: int) -> PhaseSources:
        """The cached inputs of phase `index` at a higher position, extracted from those at its cut."""
        start = self._position(index)
        frozen = FrozenPart(
            self.backbone, self.device, REFERENCE, maps=f"features at {start} by {self._frozen().label}"
        )
        with extracting_with(PassFromMaps(train, self.train.rows, start)):
            above = self._extract(self._request(index), frozen, [position])[position]
        if val is None:
            return PhaseSources(self._cached(above, self.train), None)
        with extracting_with(PassFromMaps(val, self.val.rows, start)):
            val_above = self._plain(self.val, frozen, [position])[position]
        return PhaseSources(self._cached(above, self.train), self._cached(val_above, self.val))

    def extraction_passes(self, trained: Iterable[int]) -> int:
        """Passes over the training images for the cached views of the phases `trained`, in the order of training."""
        passes, served = 0, set[int]()
        for index in trained:
            passes += index not in served and self.plans[index].views > 0
            served.update(self._served_with(index))
        return passes

    def evaluation_sources(self, trained: Collection[str], splits: Collection[str]) -> EvaluationSources | None:
        """Inputs to evaluate the finished classifier on, from the cache.

        Args:
            trained: Names of the phases that were not skipped.
            splits: Which of "val" and "test" are evaluated.

        Returns:
            `None` where a trained phase has no cached features.
        """
        indices = [index for index, plan in enumerate(self.plans) if plan.phase.name in trained]
        if any(self.plans[index].views == 0 for index in indices):
            return None
        lowest = min(indices, key=self._position)
        position, frozen = self._position(lowest), self._frozen()
        found = {"train": self._cached(self._extract(self._request(lowest), frozen, [position])[position], self.train)}
        for split, labelled in (("val", self.val), ("test", self.test)):
            if split in splits:
                found[split] = self._cached(self._plain(labelled, frozen, [position])[position], labelled)
        return EvaluationSources(position, found)

    def _plain(self, labelled: LabelledRows, frozen: FrozenPart, positions: list[int]) -> dict[int, CachedFeatures]:
        """Plain views of validation or test at each position, extracted in one pass."""
        return self._extract(ViewRequest(self.pixels, labelled.rows, 1, PLAIN, self.seed), frozen, positions)

    def _extract(self, request: ViewRequest, frozen: FrozenPart, positions: list[int]) -> dict[int, CachedFeatures]:
        views = f", {request.views} views each" if request.views > 1 else ""
        bar = self.bar(f"extract features of {count(len(request.rows), 'image')}{views}")
        return extract(request, frozen, positions, self.cache, bar, self.process)

    def _cached(self, features: CachedFeatures, labelled: LabelledRows) -> Source:
        return CachedSource.of(features, self._targets(labelled), self.device, self.seed)

    def _targets(self, labelled: LabelledRows) -> torch.Tensor:
        return torch.from_numpy(labelled.targets).to(self.device)

    def _served_with(self, index: int) -> list[int]:
        """This phase and the later ones that the same pass serves: same views, and nothing below their cut trained.

        Of the optional phases only the first is included: it is nearly always trained.
        """
        plan, lowest, served = self.plans[index], self._position(index), [index]
        for later in range(index + 1, len(self.plans)) if not plan.phase.optional else ():
            position = self._position(later)
            if position <= lowest and replace(self.plans[later], phase=plan.phase) == plan:
                served.append(later)
            if self.plans[later].phase.optional:
                break
            lowest = min(lowest, position)
        return served

    def _request(self, index: int) -> ViewRequest:
        plan = self.plans[index]
        return ViewRequest(self.pixels, self.train.rows, max(plan.views, 1), plan.augmentation, self.seed)

    def _position(self, index: int) -> int:
        return self.backbone.cut(self.plans[index].phase.cut).position

    def _frozen(self) -> FrozenPart:
        return FrozenPart(self.backbone, self.device, self.engine)


def input_plans(recipe: Recipe) -> tuple[InputPlan, ...]:
    """How each phase of a resolved recipe gets its inputs."""
    return tuple(_input_plan(recipe, phase) for phase in recipe.phases)


def _input_plan(recipe: Recipe, phase: Phase) -> InputPlan:
    augmentation = of_phase(recipe.augment, phase.augment)
    if phase.inputs != "cached":
        return InputPlan(phase, augmentation, 0)
    # All views of an image are equal where nothing changes in them.
    return InputPlan(phase, augmentation, int(recipe.views) if augmentation.changes else 1)
