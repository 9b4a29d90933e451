"""Where the loop gets its batches: stored features, or pixels seen anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from thaw.data.pixel_store import PixelStore
from thaw.features.engines import FrozenPart
from thaw.features.extract import ViewRequest, draw
from thaw.features.store import FeatureStore
from thaw.seeds import derive_seed

Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """Labelled inputs at one cut."""

    @property
    def views(self) -> int:
        """How many epochs show each image differently."""
        ...

    def __len__(self) -> int:
        """Images an epoch."""
        ...

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """Inputs at the cut, float32, and targets of the chosen images, as `epoch` sees them."""
        ...


@dataclass(frozen=True)
class StoredSource:
    """Features from a store; each epoch reads another of an image's views, starting at a random one."""

    store: FeatureStore
    targets: Tensor
    device: torch.device
    first_view: np.ndarray

    @classmethod
    def of(cls, store: FeatureStore, targets: Tensor, device: torch.device, seed: int) -> StoredSource:
        """A source whose first views are drawn from `seed`."""
        views = store.views
        first_view = np.random.default_rng(derive_seed(seed, "first view")).integers(views, size=len(targets))
        return cls(store, targets, device, first_view)

    @property
    def views(self) -> int:
        """The stored views of each image."""
        return self.store.views

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """One gather from the store."""
        features = self.store.batch(chosen, (self.first_view[chosen] + epoch) % self.views)
        return features.to(self.device).float(), self.targets[chosen].to(self.device)


@dataclass(frozen=True)
class FreshSource:
    """Pixels drawn anew each epoch and run through the frozen blocks at once, where nothing is stored."""

    pixels: PixelStore
    request: ViewRequest
    frozen: FrozenPart
    position: int
    targets: Tensor
    device: torch.device

    @property
    def views(self) -> int:
        """As many as the look asks for, though every epoch's are new."""
        return self.request.views

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """One batch of new views."""
        drawn = draw(self.pixels, self.request, [(int(row), epoch) for row in self.request.rows[chosen]])
        return self.frozen.runner([self.position]).run(drawn)[0].to(self.device), self.targets[chosen].to(self.device)


def batches(source: Source, batch_size: int, epoch: int, shuffle_seed: int | None) -> Iterator[Batch]:
    """One epoch of batches of nearly equal size, at most `batch_size`, shuffled by a seed or in order.

    The next batch is made while the current one is used.
    """
    order = np.arange(len(source))
    if shuffle_seed is not None:
        order = np.random.default_rng(derive_seed(shuffle_seed, epoch)).permutation(order)
    parts = np.array_split(order, -(-len(order) // batch_size))
    with ThreadPoolExecutor(max_workers=1) as ahead:
        following = ahead.submit(source.batch, parts[0], epoch)
        for part in parts[1:]:
            current, following = following, ahead.submit(source.batch, part, epoch)
            yield current.result()
        yield following.result()
