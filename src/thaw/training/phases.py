"""What each phase reads at its cut: stored features where the plan stores them, pixels seen anew where it does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from thaw.backbones.contract import Backbone
from thaw.data.augment import Augmentation, resolve
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import LabelledRows
from thaw.features.engines import FrozenPart
from thaw.features.extract import FeatureCache, OnProgress, ViewRequest, extract
from thaw.features.store import FeatureStore
from thaw.recipe import AugmentSettings, Engine, Phase, Recipe
from thaw.training.sources import FreshSource, PhaseSources, Source, StoredSource

PLAIN = Augmentation()


@dataclass(frozen=True)
class PhaseInput:
    """How one phase gets its images: `views` stored views of each, or 0 to draw and run them anew each epoch."""

    phase: Phase
    augmentation: Augmentation
    views: int


@dataclass(frozen=True)
class FinalSources:
    """Inputs at the lowest cut that was trained: `train` as one of its views each, validation and test as they are."""

    position: int
    train: Source
    val: Source
    test: Source


@dataclass(frozen=True)
class PhaseReader:
    """Gives each phase its inputs, and looks at every image once for as many phases as one pass can serve.

    Images of validation and test are looked at together, as they are, so that the final test costs no look either.
    """

    inputs: tuple[PhaseInput, ...]
    pixels: PixelStore
    backbone: Backbone
    engine: Engine
    train: LabelledRows
    val: LabelledRows
    test: LabelledRows
    feature_cache: FeatureCache
    seed: int
    device: torch.device
    bar: Callable[[str], OnProgress]

    def sources_of(self, index: int) -> PhaseSources:
        """Training and validation inputs of phase `index`, made with the weights that the backbone holds now."""
        own, position = self.inputs[index], self._position(index)
        frozen = self._frozen()
        request = self._request(index)
        if own.views == 0:
            plain = replace(request, rows=self.val.rows, views=1, augmentation=PLAIN)
            return PhaseSources(
                FreshSource(self.pixels, request, frozen, position, _targets(self.train), self.device),
                FreshSource(self.pixels, plain, frozen, position, _targets(self.val), self.device),
            )
        positions = [self._position(other) for other in self._served_with(index)]
        stores = self._extract(request, frozen, positions)
        val, _ = self._plain(frozen, positions, position)
        return PhaseSources(self._stored(stores[position], self.train), val)

    def extraction_passes(self, trained: Iterable[int]) -> int:
        """How many passes over the images the views of these phases take, in the order of their training."""
        passes, served = 0, set[int]()
        for index in trained:
            passes += index not in served and self.inputs[index].views > 0
            served.update(self._served_with(index))
        return passes

    def final_sources(self, trained: Collection[str]) -> FinalSources | None:
        """What the finished classifier is judged on, from what is stored; `None` where nothing is stored for it.

        `trained` names the phases that were not left out.
        """
        indices = [index for index, item in enumerate(self.inputs) if item.phase.name in trained]
        if any(self.inputs[index].views == 0 for index in indices):
            return None
        lowest = min(indices, key=self._position)
        position, frozen = self._position(lowest), self._frozen()
        stores = self._extract(self._request(lowest), frozen, [position])
        return FinalSources(
            position, self._stored(stores[position], self.train), *self._plain(frozen, [position], position)
        )

    def _plain(self, frozen: FrozenPart, positions: list[int], position: int) -> tuple[Source, Source]:
        rows = np.concatenate([self.val.rows, self.test.rows])
        request = ViewRequest(rows, 1, PLAIN, self.seed, self.backbone.facts.pixels)
        store = self._extract(request, frozen, positions)[position]
        border = len(self.val.rows)
        return (
            self._stored(store.part(0, border), self.val),
            self._stored(store.part(border, len(store.rows)), self.test),
        )

    def _extract(self, request: ViewRequest, frozen: FrozenPart, positions: list[int]) -> dict[int, FeatureStore]:
        views = f", {request.views} views of each" if request.views > 1 else ""
        bar = self.bar(f"look once at {len(request.rows)} images{views}")
        return extract(self.pixels, request, frozen, positions, self.feature_cache, bar)

    def _stored(self, store: FeatureStore, labelled: LabelledRows) -> Source:
        return StoredSource.of(store, _targets(labelled), self.device, self.seed)

    def _served_with(self, index: int) -> list[int]:
        """This phase and the later ones that the same pass serves: same views, and nothing below their cut trained.

        Of phases that may be left out the first counts only: nearly always it is not.
        """
        own, reach, served = self.inputs[index], self._position(index), [index]
        for later in range(index + 1, len(self.inputs)) if not own.phase.optional else ():
            position = self._position(later)
            if position <= reach and replace(self.inputs[later], phase=own.phase) == own:
                served.append(later)
            if self.inputs[later].phase.optional:
                break
            reach = min(reach, position)
        return served

    def _request(self, index: int) -> ViewRequest:
        own = self.inputs[index]
        return ViewRequest(self.train.rows, max(own.views, 1), own.augmentation, self.seed, self.backbone.facts.pixels)

    def _position(self, index: int) -> int:
        return self.backbone.cut(self.inputs[index].phase.cut).position

    def _frozen(self) -> FrozenPart:
        return FrozenPart(self.backbone, self.device, self.engine)


def _targets(labelled: LabelledRows) -> torch.Tensor:
    return torch.from_numpy(labelled.targets)


def phase_inputs(recipe: Recipe) -> tuple[PhaseInput, ...]:
    """How each phase of a resolved recipe gets its images."""
    return tuple(
        PhaseInput(
            phase,
            resolve(recipe.augment if phase.augment is None else AugmentSettings(preset=phase.augment)),
            int(recipe.views) if phase.inputs == "cached" else 0,
        )
        for phase in recipe.phases
    )
