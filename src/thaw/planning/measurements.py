"""What is measured before anything is decided, and what a decision looks like."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.backbones.contract import Facts
from thaw.device import DeviceChoice
from thaw.features.probe import EngineChoice
from thaw.features.store import StoredType
from thaw.planning.costs import StepTimings
from thaw.recipe import Recipe, Task


@dataclass(frozen=True)
class Choice:
    """One setting, the value it got, and why in one sentence."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe in which something is decided, and the reasons."""

    recipe: Recipe
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class ViewSizes:
    """Bytes that one stored view takes in half precision and in eight bits."""

    float16: int
    uint8: int

    def of(self, dtype: StoredType) -> int:
        """Bytes as one type or the other."""
        return self.uint8 if dtype == "uint8" else self.float16


@dataclass(frozen=True)
class Measurements:
    """What was measured before anything is decided.

    `plain_images` are those of validation and test, looked at once as they are. `imbalance` is the largest class count
    over the smallest. `sizes` and `positions` run along the phases: what one stored view takes at the phase's cut, and
    where that cut lies (0 at the pixels).
    """

    task: Task
    train_images: int
    val_images: int
    plain_images: int
    imbalance: float
    facts: Facts
    device: DeviceChoice
    engine: EngineChoice
    thawed: StepTimings
    positions: tuple[int, ...]
    sizes: tuple[ViewSizes, ...]
    free_bytes: int
