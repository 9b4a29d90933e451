"""Near-duplicates, found by pixels alone: the same image recompressed, resized, brightened, mirrored or rotated.

Images of one data set have most of their content in common: every solar cell has the same bars. Therefore thumbnails
are whitened with the covariance of the data set, after which the common scene counts no more than a scratch on one
image. The correlation of different images is then close to 0, and that of copies 0.7 or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from thaw.data.nearest import MIN_CORRELATION, nearest
from thaw.progress import OnProgress

VERSION = 5
"""Version of the algorithm: increases when its results on the same pixels change."""

THUMBNAIL_SIDE = 32
"""Side of a thumbnail in pixels: fine enough to distinguish images, coarse enough to survive recompression."""

MAX_DISTANCE_RATIO = 0.3
"""Largest distance of near-duplicates, as a fraction of the distance to the image's 16th nearest neighbour: uniform
images, such as clean solar cells of one module, correlate with many others, a copy with one."""

CERTAIN_CORRELATION = 0.95
"""Correlation from which two images are near-duplicates regardless of the neighbours, for bursts of many copies."""

_MIN_DEVIATION = 1.0
"""Standard deviation in grey levels below which a thumbnail is blank and not compared."""

_REGULARISATION = 0.01
"""Added to each variance, as a fraction of their mean: directions that are almost constant are mostly noise. In a small
set the fraction approaches 1, because directions that few images span look constant too."""

_REFERENCE_NEIGHBOUR = 16
_BLOCK = 1024


@dataclass(frozen=True)
class NearDuplicate:
    """Two rows with the same image, the lower row first, and the correlation of their thumbnails, -1..1."""

    first: int
    second: int
    correlation: float


def near_duplicates(
    read: Callable[[int], np.ndarray], rows: Sequence[int], workers: int, on_progress: OnProgress | None = None
) -> list[NearDuplicate]:
    """Find near-duplicates.

    A crop of an image is not a near-duplicate of it. Of more than 32 copies of one image, each is paired with 32.
    Of more than `thaw.data.nearest.MOST_COMPARED` images a few pairs that correlate least are missed. Memory is 7 kB
    per image.

    Args:
        read: Returns the image of a row, (H, W, 3) uint8.
        rows: The rows to compare.
        workers: Threads that read images.
        on_progress: Called with the images done and their total.

    Returns:
        All pairs, sorted by row.
    """
    thumbnails = np.empty((len(rows), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.float32)
    has_content = np.zeros(len(rows), bool)

    def fill(index: int) -> None:
        image = thumbnail(read(rows[index]))
        deviation = image.std()
        has_content[index] = deviation > _MIN_DEVIATION
        thumbnails[index] = (image - image.mean()) / max(deviation, _MIN_DEVIATION)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), _BLOCK):
            list(pool.map(fill, range(start, min(start + _BLOCK, len(rows)))))
    compared = np.flatnonzero(has_content)
    if len(compared) < 2:
        return []
    whitened = thumbnails if len(compared) == len(thumbnails) else thumbnails[compared]
    _whiten(whitened)
    pairs: set[tuple[int, int, float]] = set()
    nearby = np.full((len(whitened), _REFERENCE_NEIGHBOUR), -np.inf, np.float32)
    for rows_here, others, correlation, done in nearest(whitened):
        nearby[rows_here] = _highest(np.concatenate([nearby[rows_here], correlation], axis=1))
        for index, column in np.argwhere(correlation >= MIN_CORRELATION):
            first, second = int(rows_here[index]), int(others[index, column])
            pairs.add((min(first, second), max(first, second), float(correlation[index, column])))
        if on_progress:
            on_progress(round(done * len(whitened)), len(whitened))
    reference = np.where(np.isfinite(nearby), nearby, np.inf).min(axis=1)
    return [
        NearDuplicate(int(rows[compared[first]]), int(rows[compared[second]]), correlation)
        for first, second, correlation in sorted(pairs)
        if correlation >= CERTAIN_CORRELATION
        or 1 - correlation <= MAX_DISTANCE_RATIO * (1 - max(reference[first], reference[second]))
    ]


def _highest(correlation: np.ndarray) -> np.ndarray:
    """The `_REFERENCE_NEIGHBOUR` highest correlations of each row."""
    return np.partition(correlation, -_REFERENCE_NEIGHBOUR, axis=1)[:, -_REFERENCE_NEIGHBOUR:]


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 as grey levels (THUMBNAIL_SIDE, THUMBNAIL_SIDE) float32."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey.astype(np.float32), (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)


def _whiten(thumbnails: np.ndarray) -> None:
    """Whiten thumbnails (N, S, S) of standard deviation 1 in place, and scale them to length one.

    Mean and covariance are those of the thumbnails in all eight orientations, so that whitening commutes with rotation
    and mirroring. An orientation permutes the pixels, and with them the rows and columns of the covariance.
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    permutations = [
        oriented.ravel() for oriented in _orientations(np.arange(flat.shape[1]).reshape(1, *thumbnails.shape[1:]))
    ]
    mean = flat.mean(axis=0)
    flat -= np.mean([mean[permutation] for permutation in permutations], axis=0)
    rows = torch.from_numpy(flat)
    covariance = (rows.T @ rows).numpy() / len(flat)
    covariance = np.mean([covariance[np.ix_(permutation, permutation)] for permutation in permutations], axis=0)
    variances, directions = torch.linalg.eigh(torch.from_numpy(covariance))
    small_set = min(1.0, len(variances) / (8 * len(flat)))
    regularised = variances.clamp_min(0) + (_REGULARISATION + small_set) * variances.mean()
    whitening = directions / regularised.clamp_min(1e-12).sqrt() @ directions.T
    for block in rows.split(_BLOCK):
        white = block @ whitening
        block.copy_(white / white.norm(dim=1, keepdim=True).clamp_min(1e-12))


def _orientations(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images (N, S, S) in the eight orientations of a square."""
    for mirrored in (images, images[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))
