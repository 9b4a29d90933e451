"""Images before anything is trained: a sample as pixels to probe with, and one view of all as features."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
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
from thaw.temporary import remove_leftovers, temporary

PROBE_IMAGES = 16
"""Images that engines and training steps are probed with."""


def plain_sample(pixels: PixelStore, rows: np.ndarray, most: int) -> Tensor:
    """Plain views (N, S, S, 3) uint8 of at most `most` of the rows, evenly spaced."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return torch.from_numpy(np.stack([pixels.plain(int(row)) for row in chosen]))


def pooled_features(
    pixels: PixelStore, rows: np.ndarray, frozen: FrozenPart, seed: int, cache: FeatureCache, on_progress: OnProgress
) -> np.ndarray:
    """What the head takes of the plain views of rows (N,), (N, C) float32, as from `features_of_view`."""
    return features_of_view(ViewRequest(pixels, rows, 1, Augmentation(), seed), frozen, cache, on_progress)


def features_of_view(
    request: ViewRequest,
    frozen: FrozenPart,
    cache: FeatureCache,
    on_progress: OnProgress,
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """What the head takes of the first requested view of each row, or of some rows.

    Args:
        request: The images and their views.
        frozen: The backbone and the engine that runs it.
        cache: Where features are read from and written to; a temporary one is used where its budget is 0.
        on_progress: Called with the number of views done, and of all views.
        chosen: (N,) int, positions among the requested rows of those that are read; by default all.

    Returns:
        (N, C) float32.
    """
    if cache.budget == 0:
        place, make = cache.folder / "features" / "uncached", partial(Path.mkdir, parents=True)
        # Of a process that was killed.
        remove_leftovers(place.parent, place.name)
        with temporary(place, make) as folder:
            return features_of_view(request, frozen, replace(cache, folder=folder, budget=None), on_progress, chosen)
    top = frozen.backbone.head_position
    features = extract(request, frozen, [top], cache, on_progress)[top]
    positions = np.arange(len(request.rows)) if chosen is None else chosen
    return features.batch(positions, np.zeros(len(positions), int)).for_head().float().numpy()
