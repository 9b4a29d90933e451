"""What each phase reads at its cut: stored features where the plan stores them, pixels seen anew where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from thaw.backbones.contract import Backbone
from thaw.data.augment import Augmentation, resolve
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import LabelledRows
from thaw.features.extract import Look, OnProgress, extract
from thaw.features.runner import Runner
from thaw.features.torch_runner import Precision, TorchRunner
from thaw.recipe import AugmentSettings, Phase, Recipe
from thaw.training.fit import PhaseSources
from thaw.training.sources import FreshSource, Source, StoredSource

LOOK_BATCH = 64
PLAIN = Augmentation()


@dataclass(frozen=True)
class PhaseInput:
    """How one phase gets its images: `views` stored views of each, or 0 to draw and run them anew each epoch."""

    phase: Phase
    augmentation: Augmentation
    views: int


@dataclass(frozen=True)
class PhaseReader:
    """Gives each phase its inputs, and looks at every image once for as many phases as one pass can serve."""

    inputs: tuple[PhaseInput, ...]
    pixels: PixelStore
    backbone: Backbone
    precision: Precision
    train: LabelledRows
    val: LabelledRows
    cache: Path
    seed: int
    device: torch.device
    bar: Callable[[str], OnProgress]

    def sources_of(self, index: int) -> PhaseSources:
        """Training and validation inputs of phase `index`, made with the weights that the backbone holds now."""
        own = self.inputs[index]
        position = self._position(index)
        spec = self.backbone.facts.pixels
        seen = Look(self.train.rows, max(own.views, 1), own.augmentation, self.seed, spec)
        plain = Look(self.val.rows, 1, PLAIN, self.seed, spec)
        if own.views == 0:
            return PhaseSources(self._fresh(seen, position, self.train), self._fresh(plain, position, self.val))
        positions = [self._position(other) for other in self._served_with(index)]
        return PhaseSources(
            self._stored(seen, positions, position, self.train), self._stored(plain, positions, position, self.val)
        )

    def _served_with(self, index: int) -> list[int]:
        """This phase and the later ones that the same pass serves: same views, and nothing below their cut trained."""
        own, reach, served = self.inputs[index], self._position(index), [index]
        for later in range(index + 1, len(self.inputs)):
            position = self._position(later)
            if position <= reach and replace(self.inputs[later], phase=own.phase) == own:
                served.append(later)
            reach = min(reach, position)
        return served

    def _position(self, index: int) -> int:
        return self.backbone.cut(self.inputs[index].phase.cut).position

    def _stored(self, look: Look, positions: list[int], position: int, labelled: LabelledRows) -> Source:
        stores = extract(
            self.pixels,
            look,
            self._runner(),
            self.backbone,
            positions,
            self.cache,
            LOOK_BATCH,
            self.bar(f"look at {len(look.rows)} images, {look.views} views"),
        )
        return StoredSource.of(stores[position], torch.from_numpy(labelled.targets), self.device, self.seed)

    def _fresh(self, look: Look, position: int, labelled: LabelledRows) -> Source:
        return FreshSource(self.pixels, look, self._runner(), position, torch.from_numpy(labelled.targets), self.device)

    def _runner(self) -> Runner:
        return TorchRunner(self.backbone, self.device, self.precision)


def phase_inputs(recipe: Recipe) -> tuple[PhaseInput, ...]:
    """How each phase of a resolved recipe gets its images."""
    return tuple(
        PhaseInput(
            phase,
            resolve(recipe.augment if phase.augment is None else AugmentSettings(preset=phase.augment)),
            int(recipe.views) if phase.inputs == "stored" else 0,
        )
        for phase in recipe.phases
    )
