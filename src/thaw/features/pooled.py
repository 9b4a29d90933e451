"""Images looked at as they are, before anything is trained: a few as pixels, to probe with, many as pooled features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.augment import Augmentation
from thaw.data.pixel_store import OnProgress, PixelStore
from thaw.features.engines import FrozenPart
from thaw.features.extract import FeatureCache, ViewRequest, extract

Bar = Callable[[str], OnProgress]

PROBE_IMAGES = 16
"""Images that engines and training steps are probed with."""


def plain_sample(pixels: PixelStore, rows: np.ndarray, most: int) -> Tensor:
    """Plain views (N, S, S, 3) uint8 of at most so many rows, taken evenly from first to last."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return torch.from_numpy(np.stack([pixels.plain(int(row)) for row in chosen]))


def pooled_features(
    pixels: PixelStore, rows: np.ndarray, frozen: FrozenPart, seed: int, cache: Path, on_progress: OnProgress
) -> np.ndarray:
    """Pooled features (N, C) float32 of the plain views of rows; kept in the cache."""
    top = frozen.backbone.head_position
    request = ViewRequest(rows, 1, Augmentation(), seed, frozen.backbone.facts.pixels)
    store = extract(pixels, request, frozen, [top], FeatureCache(cache, "float16", 1 << 62), on_progress)[top]
    return store.batch(np.arange(len(rows)), np.zeros(len(rows), int)).float().numpy()
