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
import torch

OnProgress = Callable[[int, int], None]

RULES = 2
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
_CANDIDATES = 32
_SKETCH, _SLACK = 192, 0.2
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

    A cut-out of a picture is another picture. Of more than 32 copies of one, each is paired with 32. Memory is 16 kB an
    image.
    """
    with ThreadPoolExecutor(workers) as pool:
        thumbnails = np.array(list(pool.map(lambda row: thumbnail(read(row)), rows))).reshape(-1, SIDE, SIDE)
    shown = np.flatnonzero(thumbnails.std(axis=(1, 2)) > _FLAT)
    if len(shown) < 2:
        return []
    prints, pairs, rivals = _whitened(thumbnails[shown]), [], []
    for start, others, agreement in _nearest(prints):
        rivals.append(np.sort(agreement, axis=1)[:, -min(_RIVAL, agreement.shape[1])])
        for index, place in np.argwhere(agreement >= SAME):
            first, second = start + int(index), int(others[index, place])
            pairs.append((min(first, second), max(first, second), float(agreement[index, place])))
        if on_progress:
            on_progress(min(start + _BLOCK, len(prints)), len(prints))
    usual = np.concatenate(rivals)
    return [
        Duplicate(int(rows[shown[first]]), int(rows[shown[second]]), agreement)
        for first, second, agreement in sorted(set(pairs))
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


def _nearest(prints: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Block by block: the first row, the rows (B, K) that agree most with each of the block, and how far (B, K).

    All pairs are compared by random projections, which keep agreements to +-0.07 (Johnson and Lindenstrauss 1984), and
    what may be a copy by the whole prints.
    """
    flat = prints.reshape(len(prints), -1)
    sketch = np.random.default_rng(0).normal(0, _SKETCH**-0.5, (flat.shape[1], _SKETCH)).astype(np.float32)
    sketches = [np.ascontiguousarray(turned).reshape(len(prints), -1) @ sketch for turned in _orientations(prints)]
    kept = min(_CANDIDATES, len(prints) - 1)
    for start in range(0, len(prints), _BLOCK):
        stop = min(start + _BLOCK, len(prints))
        rough = sketches[0][start:stop] @ sketches[0].T
        for turned in sketches[1:]:
            np.maximum(rough, sketches[0][start:stop] @ turned.T, out=rough)
        rough[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        nearest = torch.topk(torch.from_numpy(rough), kept, sorted=False)
        agreement, others = nearest.values.numpy(), nearest.indices.numpy()
        for index, place in np.argwhere(agreement >= SAME - _SLACK):
            first, second = sorted((start + int(index), int(others[index, place])))
            agreement[index, place] = max(np.vdot(prints[first], turned) for turned in _orientations(prints[[second]]))
        yield start, others, agreement
