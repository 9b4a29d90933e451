"""What is measured before anything is planned, and what a planned setting looks like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from thaw.backbones.facts import Facts
from thaw.device import DeviceChoice
from thaw.features.encoding import CacheDtype
from thaw.features.probe import EngineChoice
from thaw.memory import UNKNOWN, MemoryUse
from thaw.planning.costs import LOGIT_BYTES, ImageCounts, Sizes
from thaw.planning.step_timings import StepTimings
from thaw.recipe import Recipe, Task
from thaw.selection.sample import MANY_CLASSES


@dataclass(frozen=True)
class Choice:
    """One setting, the value it got, and why in one sentence."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe with some of its settings planned, and the reasons."""

    recipe: Recipe
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class ViewSizes:
    """Bytes of one cached view in half precision and in eight bits."""

    float16: int
    uint8: int

    def of(self, dtype: CacheDtype) -> int:
        """Bytes in one data type or the other."""
        return self.uint8 if dtype == "uint8" else self.float16


@dataclass(frozen=True)
class Measurements:
    """What was measured before anything is planned.

    images: how many there are in each split. imbalance: the largest class count over the smallest. positions, sizes:
    for each phase, the position of its cut (0 at the pixels) and the bytes of one view there. trained_bytes: for each
    phase, of the weights above its cut. threads: of the CPU, with which everything was measured. feature_width: of the
    features that the head takes. free_bytes: disk space in the cache folder that is free or holds features. group_by:
    where the groups of the images are from. processes: how many train together; one measured. device_free_bytes: free
    memory of the accelerator, 0 without one. pixel_bytes: what all images would take there. memory: of this process,
    which has run the engine, and training steps where they were timed. outputs: of the head. solving: floating-point
    operations per second of L-BFGS on the head, measured for many outputs only.
    """

    task: Task
    images: ImageCounts
    imbalance: float
    facts: Facts
    device: DeviceChoice
    engine: EngineChoice
    steps: StepTimings
    threads: int
    positions: tuple[int, ...]
    sizes: tuple[ViewSizes, ...]
    trained_bytes: tuple[int, ...]
    feature_width: int
    free_bytes: int
    group_by: Choice = Choice("split.group_by", "none", "the data has no groups, and none were found")
    processes: int = 1
    device_free_bytes: int = 0
    pixel_bytes: int = 0
    memory: MemoryUse = UNKNOWN
    outputs: int = 0
    solving: float = inf

    def of_first(self, phases: int) -> Measurements:
        """What was measured for the first phases alone."""
        steps = replace(self.steps, batch_sizes=self.steps.batch_sizes[:phases], rates=self.steps.rates[:phases])
        return replace(
            self,
            steps=steps,
            positions=self.positions[:phases],
            sizes=self.sizes[:phases],
            trained_bytes=self.trained_bytes[:phases],
        )

    def bytes_at_head(self, views: int) -> int:
        """Bytes in memory of what the head takes of some views of all training images."""
        return self.images.train * views * self.pooled_bytes

    def bytes_to_solve(self, views: int) -> int:
        """Bytes in memory that L-BFGS needs for some views: those at the head and, for many outputs, of the logits."""
        logits = LOGIT_BYTES * self.outputs if self.outputs > MANY_CLASSES else 0
        return self.bytes_at_head(views) + self.images.train * views * logits

    def stored(self, cache_bytes: int) -> Sizes:
        """What is stored, with that many bytes of cached features."""
        return Sizes(cache_bytes, self.pooled_bytes, self.trained_bytes, self.memory, self.outputs)

    @property
    def pooled_bytes(self) -> int:
        """Bytes of the features at the head of one view in memory, as float32."""
        return 4 * self.feature_width
