"""Where the training loop gets its batches: cached features, or new views that run through the frozen part at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.device import to_device
from thaw.errors import TrainingError
from thaw.features.cache import CachedFeatures
from thaw.features.device_features import DeviceFeatures, device_features
from thaw.features.engines import FrozenPart
from thaw.features.view_request import ViewRequest
from thaw.processes import ALONE, Process
from thaw.seeds import derive_seed

_POOLED_BATCH = 64

Batch = tuple[AtCut, Tensor]
"""What lies at a cut, float32, and its targets, (N,) int64 or (N, C) float32."""


class Source(Protocol):
    """Labelled inputs at one cut."""

    @property
    def views(self) -> int:
        """How many epochs have different views of each image; later epochs repeat them."""
        ...

    @property
    def targets(self) -> Tensor:
        """The targets of all images, on the device."""
        ...

    def __len__(self) -> int:
        """Images per epoch."""
        ...

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """The batch of the images with indices `chosen` (N,), in the view that `epoch` has of them."""
        ...


@dataclass(frozen=True)
class PhaseSources:
    """Training inputs at the cut of one phase, and those of validation, if any images are left for it.

    extract: extracts those at a higher position once; `None` where they are computed whenever they are read.
    """

    train: Source
    val: Source | None
    extract: Callable[[int], PhaseSources] | None = None

    def above(self, backbone: Backbone, start: int, stop: int) -> PhaseSources:
        """The inputs at a higher cut, with the weights that the backbone has now; nothing below it trains any more."""
        if self.extract:
            return self.extract(stop)
        val = None if self.val is None else AdvancedSource(self.val, backbone, start, stop)
        return PhaseSources(AdvancedSource(self.train, backbone, start, stop), val)


@dataclass(frozen=True)
class CachedSource:
    """Cached features; each epoch reads the next view of an image, beginning with a random one.

    first_view: (N,) int64, the view of each image in epoch 0. on_device: the features, where the device holds them.
    """

    features: CachedFeatures
    targets: Tensor
    device: torch.device
    first_view: np.ndarray
    on_device: DeviceFeatures | None = None

    @classmethod
    def of(cls, features: CachedFeatures, targets: Tensor, device: torch.device, seed: int) -> CachedSource:
        """A source whose first views are drawn from `seed`; on an accelerator the features stay there if they fit."""
        draws = np.random.default_rng(derive_seed(seed, "first view"))
        first_view = draws.integers(features.views, size=len(targets))
        return cls(features, targets.to(device), device, first_view, device_features(features, device))

    @property
    def views(self) -> int:
        """Cached views of each image."""
        return self.features.views

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """The features of the chosen images, read from the cache."""
        views = (self.first_view[chosen] + epoch) % self.views
        at = self.on_device.batch(chosen, views) if self.on_device else self.features.batch(chosen, views)
        return at.to(self.device), self.targets[to_device(chosen, self.device)]


@dataclass(frozen=True)
class FreshSource:
    """New views in each epoch, run through the frozen part batch by batch; nothing is cached."""

    request: ViewRequest
    frozen: FrozenPart
    position: int
    targets: Tensor
    device: torch.device

    @property
    def views(self) -> int:
        """The number of views that is requested, although every epoch has new ones."""
        return self.request.views

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """Features of newly drawn views of the chosen images."""
        pixels = self.request.render([(int(row), epoch) for row in self.request.rows[chosen]], self.device)
        (at,) = self.frozen.runner([self.position]).run(pixels)
        return at.to(self.device), self.targets[to_device(chosen, self.device)]


@dataclass(frozen=True)
class JoinedSource:
    """The images of several sources one after the other, such as those of an earlier run and new ones."""

    parts: Sequence[Source]

    @property
    def views(self) -> int:
        """As many epochs as every part has different views for."""
        return min(part.views for part in self.parts)

    @property
    def targets(self) -> Tensor:
        """The targets of all parts."""
        return torch.cat([part.targets for part in self.parts])

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """What each part gives for its images, in the order of `chosen`."""
        places, batches, start = [], [], 0
        for part in self.parts:
            (own,) = np.nonzero((chosen >= start) & (chosen < start + len(part)))
            if len(own):
                places.append(own)
                batches.append(part.batch(chosen[own] - start, epoch))
            start += len(part)
        if len(batches) == 1:
            return batches[0]
        inputs, targets = zip(*batches, strict=True)
        order = to_device(np.argsort(np.concatenate(places)), targets[0].device)
        values, stages = (torch.cat(columns)[order] for columns in zip(*inputs, strict=True))
        values = values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values
        return AtCut(values, stages), torch.cat(targets)[order]


class DerivedSource(ABC):
    """A source whose batches are made of those of another one, for the same images."""

    source: Source

    @property
    def views(self) -> int:
        """As the source has."""
        return self.source.views

    @property
    def targets(self) -> Tensor:
        """As the source has."""
        return self.source.targets

    def __len__(self) -> int:
        return len(self.source)

    @abstractmethod
    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """As `Source.batch`."""


@dataclass(frozen=True)
class AdvancedSource(DerivedSource):
    """What lies at a higher cut, computed from a source at a lower one whenever it is read; nothing between trains."""

    source: Source
    backbone: Backbone
    start: int
    stop: int

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """The batch of the source, run through the blocks between the cuts."""
        inputs, targets = self.source.batch(chosen, epoch)
        with torch.no_grad():
            return self.backbone.advance(inputs, self.start, self.stop), targets


def pooled(source: Source, backbone: Backbone, position: int) -> Source:
    """A source at a cut as one at the head, with the weights that the backbone has now, held in memory."""
    if position == backbone.head_position:
        return source
    backbone.eval()
    advanced, views = AdvancedSource(source, backbone, position, backbone.head_position), []
    for epoch in range(source.views):
        wanted = global_batches(len(source), _POOLED_BATCH, epoch=0, shuffle_seed=None)
        inputs, _ = zip(*read(advanced, wanted, epoch), strict=True)
        views.append([torch.cat(columns).cpu().numpy() for columns in zip(*inputs, strict=True)])
    values, stages = (np.stack(columns, axis=1) for columns in zip(*views, strict=True))
    features = CachedFeatures.whole(values, stages if stages.shape[2] else None)
    return CachedSource.of(features, source.targets, source.targets.device, seed=0)


def global_batches(images: int, batch_size: int, epoch: int, shuffle_seed: int | None) -> list[np.ndarray]:
    """The indices of one epoch, shuffled by a seed or in order, in batches of nearly equal size.

    Args:
        images: Size of the data set.
        batch_size: Largest size of a batch, over all processes together.
        epoch: Changes the order of a shuffled epoch.
        shuffle_seed: `None` for the order of the data set.

    Returns:
        Index arrays (N,) int64 that together hold every image once.
    """
    order = np.arange(images)
    if shuffle_seed is not None:
        order = np.random.default_rng(derive_seed(shuffle_seed, epoch)).permutation(order)
    return np.array_split(order, -(-images // batch_size))


def batches(
    source: Source, batch_size: int, epoch: int, shuffle_seed: int | None, process: Process = ALONE
) -> Iterator[Batch]:
    """One epoch of a source: this process's part of each global batch.

    Raises:
        TrainingError: A global batch has fewer images than there are processes.
    """
    wanted = global_batches(len(source), batch_size, epoch, shuffle_seed)
    if min(map(len, wanted)) < process.count:
        raise TrainingError(f"a batch has fewer images than the {process.count} processes; increase batch_size")
    yield from read(source, [process.part(batch) for batch in wanted], epoch)


def read(source: Source, wanted: Sequence[np.ndarray], epoch: int) -> Iterator[Batch]:
    """The batches of some indices, the next one prepared in a thread."""
    if not wanted:
        return
    with ThreadPoolExecutor(max_workers=1) as ahead:
        following = ahead.submit(source.batch, wanted[0], epoch)
        for chosen in wanted[1:]:
            current, following = following, ahead.submit(source.batch, chosen, epoch)
            yield current.result()
        yield following.result()
