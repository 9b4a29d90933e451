"""Near-duplicates by their pixels alone: the same picture recompressed, resized, brightened, mirrored or turned.

Images of one set share most of what they show: every solar cell has the same bars. So what is compared is what they do
not share: thumbnails are whitened with the set's own covariance, after which the scene that all of them have weighs no
more than a scratch that one of them has. Then different images hardly agree, and copies to 0.7 or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

OnProgress = Callable[[int, int], None]

RULES = 1
"""Counts up when what is found in the same pixels changes."""

SIDE = 32
"""Pixels of a thumbnail's side: fine enough to tell pictures apart, coarse enough to survive recompression."""

SAME = 0.6
"""Least agreement of two near-duplicates."""

STANDS_OUT = 0.3
"""How close a near-duplicate is, as a share of the distance to the image's 16th nearest: bland pictures, such as clean
solar cells of one module, agree with many others, a copy with one."""

CERTAIN = 0.95
"""Agreement from which two pictures are the same whatever the others are, for a burst of many copies."""

_FLAT = 1.0
"""Grey levels of deviation below which a thumbnail shows nothing that could be compared."""

_REGULAR = 0.01
"""Added to each variance, as a share of their mean: what is all but constant in a set is mostly noise. In a small set
that share is nearer to 1, for what few images do not show looks constant too."""

_RIVAL = 16
_BLOCK = 1024


@dataclass(frozen=True)
class Duplicate:
    """Two rows that show the same picture, the lower one first, and how far they agree, in -1..1."""

    first: int
    second: int
    agreement: float


def near_duplicates(
    read: Callable[[int], np.ndarray], rows: Sequence[int], workers: int, on_progress: OnProgress | None = None
) -> list[Duplicate]:
    """Every pair of `rows` that shows the same picture; `read` gives a row as (H, W, 3) uint8.

    A cut-out of a picture is another picture. Time grows with the square of the rows: 2 s for 3,000 images on 2 cores,
    a minute for 20,000; memory is that of 8 kB an image.
    """
    with ThreadPoolExecutor(workers) as pool:
        thumbnails = np.array(list(pool.map(lambda row: thumbnail(read(row)), rows))).reshape(-1, SIDE, SIDE)
    shown = np.flatnonzero(thumbnails.std(axis=(1, 2)) > _FLAT)
    if len(shown) < 2:
        return []
    prints, pairs, rivals = _whitened(thumbnails[shown]), [], []
    for start in range(0, len(prints), _BLOCK):
        agreement = _agreement(prints[start : start + _BLOCK], prints)
        agreement[np.arange(len(agreement)), start + np.arange(len(agreement))] = -1
        rival = min(_RIVAL, len(prints) - 1)
        rivals.append(-np.partition(-agreement, rival - 1, axis=1)[:, rival - 1])
        for first, second in np.argwhere(agreement >= SAME):
            if start + first < second:
                pairs.append((start + int(first), int(second), float(agreement[first, second])))
        if on_progress:
            on_progress(min(start + _BLOCK, len(prints)), len(prints))
    usual = np.concatenate(rivals)
    return [
        Duplicate(int(rows[shown[first]]), int(rows[shown[second]]), agreement)
        for first, second, agreement in pairs
        if agreement >= CERTAIN or 1 - agreement <= STANDS_OUT * (1 - max(usual[first], usual[second]))
    ]


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 as (SIDE, SIDE) float32 grey levels."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _whitened(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails (N, S, S) as unit vectors (N, S, S) in which no direction is more usual than another.

    Mean and covariance are those of the thumbnails in all eight orientations, so that whitening a turned thumbnail
    is turning a whitened one. Contrast counts for nothing: each is first brought to deviation 1.
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    square = flat.reshape(thumbnails.shape)
    mean = np.mean([turned.mean(axis=0) for turned in _orientations(square)], axis=0).ravel()
    centred = flat - mean
    covariance = np.zeros((flat.shape[1], flat.shape[1]), np.float32)
    for turned in _orientations(centred.reshape(thumbnails.shape)):
        values = turned.reshape(len(flat), -1)
        covariance += values.T @ values / (8 * len(flat))
    variances, directions = np.linalg.eigh(covariance)
    unseen = min(1.0, len(variances) / (8 * len(flat)))
    scale = 1 / np.sqrt(variances.clip(0) + (_REGULAR + unseen) * variances.mean())
    white = (centred @ directions * scale) @ directions.T
    white /= np.linalg.norm(white, axis=1, keepdims=True).clip(1e-12)
    return np.ascontiguousarray(white, dtype=np.float32).reshape(thumbnails.shape)


def _orientations(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images (N, S, S) in the eight ways that a square can lie."""
    for mirrored in (images, images[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))


def _agreement(some: np.ndarray, prints: np.ndarray) -> np.ndarray:
    """(len(some), len(prints)): how far each of some agrees with each, in the orientation in which they agree best."""
    flat, best = some.reshape(len(some), -1), np.full((len(some), len(prints)), -1, np.float32)
    for turned in _orientations(prints):
        np.maximum(best, flat @ turned.reshape(len(prints), -1).T, out=best)
    return best
