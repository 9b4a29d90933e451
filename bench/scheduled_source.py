"""The training images of a phase as a schedule has them: on windows of the maps, on whole maps, or left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.seeds import derive_seed
from thaw.training.sources import Batch, DerivedSource, Source

FRACTION = 0.7
LOW_LOSS = 0.02
"""Training loss below which an image is left out of the next epoch, where a schedule skips."""


@dataclass(frozen=True)
class Schedule:
    """How the phase is trained: on windows for the epochs `windows`, then on whole maps for the epochs `whole`.

    patience: epochs without a better one on validation that end the windows, or the phase where there are none; `None`
    for no early end. skips: from half of the epochs on, images with a low training loss are left out of the next epoch.
    """

    name: str
    windows: int
    whole: int
    patience: int | None = None
    skips: bool = False

    @property
    def epochs(self) -> int:
        """The length of the learning-rate schedule."""
        return self.windows + self.whole


def window_side(side: int) -> int:
    """The side of a window of a map: even, so that a stride of two divides it as it divides the map."""
    return min(side, 2 * max(1, round(FRACTION * side / 2)))


def windows_of(values: Tensor, places: np.ndarray) -> Tensor:
    """One window of each map (N, C, H, W), at places (N, 2) in 0..1 from the first to the last; channels_last."""
    inside = []
    for axis, side in enumerate(values.shape[2:]):
        size = window_side(side)
        starts = torch.from_numpy((places[:, axis] * (side - size + 1)).astype(np.int64))
        inside.append(starts[:, None] + torch.arange(size))
    rows, columns = inside
    images = torch.arange(len(values))[:, None, None]
    return values[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass
class ScheduledSource(DerivedSource):
    """The training images of a source as a schedule has them, and how many of them were trained on.

    whole_from: number of epochs on windows. taken: images of the running epoch. losses: of each image, when it was last
    trained on. pending: images of batches that were read and not yet trained on. epoch: how many are done. windows,
    whole: images.
    """

    source: Source
    schedule: Schedule
    seed: int
    whole_from: int
    taken: np.ndarray
    losses: np.ndarray
    pending: deque[np.ndarray] = field(default_factory=deque)
    epoch: int = 0
    windows: int = 0
    whole: int = 0

    @classmethod
    def of(cls, source: Source, schedule: Schedule, seed: int) -> ScheduledSource:
        return cls(source, schedule, seed, schedule.windows, np.arange(len(source)), np.full(len(source), np.inf))

    @property
    def is_on_windows(self) -> bool:
        return self.epoch < self.whole_from

    def __len__(self) -> int:
        return len(self.taken)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        images = self.taken[chosen]
        self.pending.append(images)
        at, targets = self.source.batch(images, epoch)
        if not self.is_on_windows:
            return at, targets
        draws = np.random.default_rng(derive_seed(self.seed, "windows", epoch)).random((len(self.source), 2))
        return AtCut(windows_of(at.values, draws[images]), at.stages), targets

    def count(self, images: np.ndarray, losses: np.ndarray) -> None:
        """Some images were trained on."""
        self.losses[images] = losses
        if self.is_on_windows:
            self.windows += len(images)
        else:
            self.whole += len(images)

    def end_epoch(self) -> None:
        """Choose the images of the next epoch."""
        self.epoch += 1
        everything = np.arange(len(self.source))
        # None twice in a row.
        is_left_out = np.isin(everything, self.taken) & (self.losses < LOW_LOSS)
        skips = self.schedule.skips and 2 * self.epoch >= self.schedule.epochs and not is_left_out.all()
        self.taken = everything[~is_left_out] if skips else everything


@contextmanager
def counted(classifier: Classifier, source: ScheduledSource) -> Iterator[None]:
    """Let a source know the images and losses of each training step."""

    def record(module: nn.Module, _: object, logits: Tensor) -> None:
        # One image is read to see which norms can be folded, and not trained on.
        images = source.pending.popleft() if source.pending else None
        if module.training and images is not None:
            with torch.no_grad():
                found = classifier.probabilities(logits)[np.arange(len(images)), source.targets[images]]
            source.count(images, -found.clamp_min(1e-12).log().numpy())

    handle = classifier.register_forward_hook(record)
    try:
        yield
    finally:
        handle.remove()
