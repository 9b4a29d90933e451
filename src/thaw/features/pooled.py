"""Images before anything is trained: a sample as pixels to probe with, and one view of all as features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.augment import Augmentation
from thaw.data.pixel_store import PixelStore
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract
from thaw.features.view_request import ViewRequest
from thaw.progress import OnProgress

PROBE_IMAGES = 16
"""Images that engines and training steps are probed with."""


def plain_sample(pixels: PixelStore, rows: np.ndarray, most: int) -> Tensor:
    """Plain views (N, S, S, 3) uint8 of at most `most` of the rows, evenly spaced."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return torch.from_numpy(np.stack([pixels.plain(int(row)) for row in chosen]))


def pooled_features(
    pixels: PixelStore, rows: np.ndarray, frozen: FrozenPart, seed: int, cache: Path, on_progress: OnProgress
) -> np.ndarray:
    """What the head takes of the plain views of rows (N,), (N, C) float32, from the feature cache in `cache`."""
    return features_of_view(ViewRequest(pixels, rows, 1, Augmentation(), seed), frozen, cache, on_progress)


def features_of_view(request: ViewRequest, frozen: FrozenPart, cache: Path, on_progress: OnProgress) -> np.ndarray:
    """What the head takes of the first requested view of each row, (N, C) float32, from the cache in `cache`."""
    top, images = frozen.backbone.head_position, len(request.rows)
    features = extract(request, frozen, [top], FeatureCache(cache, "float16"), on_progress)[top]
    return features.batch(np.arange(images), np.zeros(images, int)).for_head().float().numpy()
