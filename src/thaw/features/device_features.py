"""Cached features that stay in the memory of the device, so that a batch is a selection there and nothing is copied."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.stages import AtCut
from thaw.device import has_room_for, to_device
from thaw.features.cache import CachedFeatures
from thaw.piecewise import ItemGrid

_CHUNK = 256 << 20
"""Bytes that are copied to the device at once."""


@dataclass(frozen=True)
class DeviceFeatures:
    """Features of images in some views on a device, as they are encoded on disk in half or single precision.

    values: (images, views, H, W, C) or (images, views, C). stages: (images, views, W), with width 0 for none.
    """

    values: Tensor
    stages: Tensor

    @classmethod
    def of(cls, features: CachedFeatures, device: torch.device) -> DeviceFeatures:
        """All rows and views of cached features, copied to a device."""
        values, *stages = (_copied(grid, features, device) for grid in features.parts)
        return cls(values, stages[0] if stages else values.new_zeros((*values.shape[:2], 0)))

    def batch(self, rows: np.ndarray, views: np.ndarray) -> AtCut:
        """View `views[i]` of row `rows[i]` as float32, maps in channels_last."""
        where = tuple(to_device(index, self.values.device) for index in (rows, views))
        values, stages = (part[where].float() for part in (self.values, self.stages))
        return AtCut(values.permute(0, 3, 1, 2) if values.ndim == 4 else values, stages)


def device_features(features: CachedFeatures, device: torch.device) -> DeviceFeatures | None:
    """Cached features on an accelerator; `None` on the CPU, for eight bits, and where they take too much of it."""
    # Eight bits with a scale per channel would have to be decoded there.
    if device.type == "cpu" or any(grid.dtype.names for grid in features.parts):
        return None
    needed = sum(len(features.rows) * _bytes_per_row(grid, features) for grid in features.parts)
    return DeviceFeatures.of(features, device) if has_room_for(needed, device) else None


def _bytes_per_row(grid: np.ndarray | ItemGrid, features: CachedFeatures) -> int:
    return features.views * prod(grid.shape[2:]) * grid.dtype.itemsize


def _copied(grid: np.ndarray | ItemGrid, features: CachedFeatures, device: torch.device) -> Tensor:
    """The wanted rows and views of a grid, (rows, views, ...), copied to a device in pieces."""
    rows = features.rows
    step = max(1, _CHUNK // _bytes_per_row(grid, features))
    parts = []
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        read = grid.block(start, stop) if isinstance(grid, ItemGrid) else grid[start:stop]
        parts.append(torch.from_numpy(np.ascontiguousarray(read[:, : features.views])).to(device))
    return torch.cat(parts)
