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

from thaw.progress import OnProgress

VERSION = 2
"""Version of the algorithm: increases when its results on the same pixels change."""

THUMBNAIL_SIDE = 32
"""Side of a thumbnail in pixels: fine enough to distinguish images, coarse enough to survive recompression."""

MIN_CORRELATION = 0.6
"""Lowest correlation of two near-duplicates."""

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
_MAX_NEIGHBOURS = 32
_SKETCH_SIZE, _SKETCH_ERROR = 192, 0.2
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
    Memory is 16 kB per image.

    Args:
        read: Returns the image of a row, (H, W, 3) uint8.
        rows: The rows to compare.
        workers: Threads that read images.
        on_progress: Called with the images done and their total.

    Returns:
        All pairs, sorted by row.
    """
    shape = (-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    with ThreadPoolExecutor(workers) as pool:
        thumbnails = np.array(list(pool.map(lambda row: thumbnail(read(row)), rows))).reshape(shape)
    compared = np.flatnonzero(thumbnails.std(axis=(1, 2)) > _MIN_DEVIATION)
    if len(compared) < 2:
        return []
    whitened, pairs, references = _whitened(thumbnails[compared]), [], []
    for start, others, correlation in _nearest(whitened):
        references.append(np.sort(correlation, axis=1)[:, -min(_REFERENCE_NEIGHBOUR, correlation.shape[1])])
        for index, column in np.argwhere(correlation >= MIN_CORRELATION):
            first, second = start + int(index), int(others[index, column])
            pairs.append((min(first, second), max(first, second), float(correlation[index, column])))
        if on_progress:
            on_progress(min(start + _BLOCK, len(whitened)), len(whitened))
    reference = np.concatenate(references)
    return [
        NearDuplicate(int(rows[compared[first]]), int(rows[compared[second]]), correlation)
        for first, second, correlation in sorted(set(pairs))
        if correlation >= CERTAIN_CORRELATION
        or 1 - correlation <= MAX_DISTANCE_RATIO * (1 - max(reference[first], reference[second]))
    ]


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 as grey levels (THUMBNAIL_SIDE, THUMBNAIL_SIDE) float32."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey.astype(np.float32), (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)


def _whitened(thumbnails: np.ndarray) -> np.ndarray:
    """Whitened thumbnails (N, S, S), scaled to length one.

    Mean and covariance are those of the thumbnails in all eight orientations, so that whitening commutes with rotation
    and mirroring. Each thumbnail is first scaled to standard deviation 1, so that contrast does not matter.
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    square = flat.reshape(thumbnails.shape)
    mean = np.mean([oriented.mean(axis=0) for oriented in _orientations(square)], axis=0).ravel()
    centred = flat - mean
    covariance = np.zeros((flat.shape[1], flat.shape[1]), np.float32)
    for oriented in _orientations(centred.reshape(thumbnails.shape)):
        values = oriented.reshape(len(flat), -1)
        covariance += values.T @ values / (8 * len(flat))
    variances, directions = np.linalg.eigh(covariance)
    small_set = min(1.0, len(variances) / (8 * len(flat)))
    scale = 1 / np.sqrt(variances.clip(0) + (_REGULARISATION + small_set) * variances.mean())
    white = (centred @ directions * scale) @ directions.T
    white /= np.linalg.norm(white, axis=1, keepdims=True).clip(1e-12)
    return np.ascontiguousarray(white, dtype=np.float32).reshape(thumbnails.shape)


def _orientations(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images (N, S, S) in the eight orientations of a square."""
    for mirrored in (images, images[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))


def _nearest(whitened: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per block of B rows: its first row, the K nearest rows of each (B, K), and their correlations (B, K).

    All pairs are compared by random projections, which preserve correlations to +-0.07 (Johnson and Lindenstrauss
    1984), and candidates by the whole thumbnails.
    """
    flat = whitened.reshape(len(whitened), -1)
    projection = np.random.default_rng(0).normal(0, _SKETCH_SIZE**-0.5, (flat.shape[1], _SKETCH_SIZE))
    projection = projection.astype(np.float32)
    sketches = [
        np.ascontiguousarray(oriented).reshape(len(whitened), -1) @ projection for oriented in _orientations(whitened)
    ]
    neighbours = min(_MAX_NEIGHBOURS, len(whitened) - 1)
    for start in range(0, len(whitened), _BLOCK):
        stop = min(start + _BLOCK, len(whitened))
        approximate = sketches[0][start:stop] @ sketches[0].T
        for sketch in sketches[1:]:
            np.maximum(approximate, sketches[0][start:stop] @ sketch.T, out=approximate)
        approximate[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        nearest = torch.topk(torch.from_numpy(approximate), neighbours, sorted=False)
        correlation, others = nearest.values.numpy(), nearest.indices.numpy()
        for index, column in np.argwhere(correlation >= MIN_CORRELATION - _SKETCH_ERROR):
            first, second = sorted((start + int(index), int(others[index, column])))
            correlation[index, column] = max(
                np.vdot(whitened[first], oriented) for oriented in _orientations(whitened[[second]])
            )
        yield start, others, correlation
