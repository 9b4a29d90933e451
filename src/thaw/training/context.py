"""What one call of `fit` works with: the classifier, the phases, the settings and the callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from thaw.classifier.classifier import Classifier
from thaw.features.torch_runner import Precision
from thaw.processes import ALONE, Process
from thaw.recipe import KeepPhase, Monitor, ResolvedPhase, Steps
from thaw.training.checkpoint import Checkpoints
from thaw.training.gain import KeepRule
from thaw.training.history import EpochRecord

OnEpoch = Callable[[Sequence[EpochRecord], bool], None]
"""Called after each epoch with all records of the run and whether the newest is the best of its phase so far."""

OnNote = Callable[[str], None]
"""Called with one sentence when a phase is skipped, stopped, changed, kept or not kept."""


@dataclass(frozen=True)
class FitSettings:
    """Settings that hold for every phase of a run.

    class_weights: (C,) float32 on the classifier's device, as `make_loss` takes them. val_images: size of the
    validation split. target: values of metrics at which training stops. target_trials: on how many independent images,
    or groups, of validation each of these rests. run: identity of the run, for its checkpoints.
    val_groups: (N,) int, validation images with the same number are dependent; `None` where all are independent.
    phase_seconds: predicted duration of all epochs of each phase, empty where it is unknown. keep_phase: the gain for
    which a later phase is kept. steps: how PyTorch runs them. repeated: the epochs of an earlier run, as many of
    each phase as now, where no images are left for validation; what was measured after them then decides again.
    """

    seed: int
    precision: Precision
    monitor: Monitor
    class_weights: Tensor | None
    checkpoints: Path
    val_images: int
    target: Mapping[Monitor, float] | None = None
    target_trials: Mapping[Monitor, int] = field(default_factory=dict)
    run: str = ""
    val_groups: np.ndarray | None = None
    phase_seconds: Sequence[float] = ()
    keep_phase: KeepPhase = "any_gain"
    steps: Steps = "eager"
    repeated: Sequence[EpochRecord] = ()

    @property
    def keep_rule(self) -> KeepRule:
        """How phases are compared."""
        return KeepRule(self.monitor, self.val_images, self.keep_phase)


Pauses = Callable[[Sequence[EpochRecord]], bool]
"""Called after each epoch with all records: whether to stop until the next call, once its checkpoint is written."""


def never(records: Sequence[EpochRecord]) -> bool:
    """Train to the end."""
    return False


class TrainingPaused(Exception):
    """Training stopped where it was told to; another call of `fit` goes on from the last checkpoint, bit for bit."""

    def __init__(self, records: Sequence[EpochRecord]) -> None:
        super().__init__(f"paused after {len(records)} epochs")
        self.records = tuple(records)


@dataclass(frozen=True)
class FitCallbacks:
    """Functions called during training, in the main process only; `pauses` in every process."""

    on_epoch: OnEpoch
    on_note: OnNote
    pauses: Pauses = never


@dataclass(frozen=True)
class FitContext:
    """Everything that stays the same from the first phase to the last."""

    classifier: Classifier
    phases: Sequence[ResolvedPhase]
    settings: FitSettings
    callbacks: FitCallbacks
    process: Process = ALONE

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this run, written by the main process only."""
        settings = self.settings
        return Checkpoints(settings.checkpoints, self.classifier, self.phases, self.process, settings.run)

    def on_epoch(self, records: Sequence[EpochRecord], is_best: bool) -> None:
        """Call `callbacks.on_epoch` in the main process."""
        if self.process.is_main:
            self.callbacks.on_epoch(records, is_best)

    def on_note(self, sentence: str) -> None:
        """Call `callbacks.on_note` in the main process."""
        if self.process.is_main:
            self.callbacks.on_note(sentence)
