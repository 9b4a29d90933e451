"""Near-duplicates, found by pixels alone: the same image recompressed, resized, brightened, mirrored or rotated.

Images of one data set have most of their content in common: every solar cell has the same bars. Therefore thumbnails
are whitened with the covariance of the data set, after which the common scene counts no more than a scratch on one
image. The correlation of different images is then close to 0, and that of copies 0.7 or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch

from thaw.progress import OnProgress

VERSION = 4
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
_PAIRS_AT_ONCE = 1 << 21
"""Pairs of images whose correlations are in memory at a time."""

_HALF_ROOT = np.float32(0.5**0.5)


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
    Memory is 6 kB per image.

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
    pairs, references = [], []
    for start, others, correlation in _nearest(whitened):
        references.append(np.sort(correlation, axis=1)[:, -min(_REFERENCE_NEIGHBOUR, correlation.shape[1])])
        for index, column in np.argwhere(correlation >= MIN_CORRELATION):
            first, second = start + int(index), int(others[index, column])
            pairs.append((min(first, second), max(first, second), float(correlation[index, column])))
        if on_progress:
            on_progress(start + len(others), len(whitened))
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


@dataclass(frozen=True)
class _Fourier:
    """N images as their discrete Fourier transform over the four rotations, which permute the quadrants of an image.

    Two images are compared in all four rotations in the time of one and a half. Each array is (N, K): `turning` holds
    the real and the imaginary part of its component, and `turned` those of the image after a quarter turn.
    """

    constant: np.ndarray
    alternating: np.ndarray
    turning: np.ndarray
    turned: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, projections: np.ndarray | None = None) -> _Fourier:
        """The transform of images (N, S, S), each component projected by one of three matrices (S * S / 4, k)."""
        half = images.shape[1] // 2
        first, second, third, fourth = (
            np.rot90(images, quarter, axes=(1, 2))[:, :half, :half].reshape(len(images), -1) for quarter in range(4)
        )
        even, odd = first + third, second + fourth
        parts = [(even + odd) / 2, (even - odd) / 2, (first - third) * _HALF_ROOT, (second - fourth) * _HALF_ROOT]
        if projections is not None:
            constant, alternating, turning = projections
            matrices = (constant, alternating, turning, turning)
            parts = [part @ matrix for part, matrix in zip(parts, matrices, strict=True)]
        constant, alternating, real, imaginary = parts
        return cls(constant, alternating, np.hstack([real, imaginary]), np.hstack([imaginary, -real]))

    def best_correlation(self, others: _Fourier, product: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """The highest correlation over all rotations; `product` sums over the second axis of two arrays."""
        best = product(self.constant, others.constant)
        alternating = product(self.alternating, others.alternating)
        half_turns = np.abs(product(self.turning, others.turning))
        quarter_turns = np.abs(product(self.turning, others.turned))
        half_turns += alternating
        quarter_turns -= alternating
        best += np.maximum(half_turns, quarter_turns, out=half_turns)
        return best


def _nearest(whitened: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per block of B rows: its first row, the K nearest rows of each (B, K), and their correlations (B, K).

    All pairs are compared by random projections, which preserve correlations to +-0.07 (Johnson and Lindenstrauss
    1984), and candidates by the whole thumbnails.
    """
    quarter, size = whitened.shape[1] * whitened.shape[2] // 4, _SKETCH_SIZE // 4
    projections = np.random.default_rng(0).normal(0, size**-0.5, (3, quarter, size)).astype(np.float32)
    sketches = _sketches(whitened, projections)
    neighbours = min(_MAX_NEIGHBOURS, len(whitened) - 1)
    block = min(_BLOCK, max(16, _PAIRS_AT_ONCE // len(whitened)))
    for start in range(0, len(whitened), block):
        rows = whitened[start : start + block]
        approximate = _approximate(rows, sketches, projections)
        approximate[np.arange(len(rows)), np.arange(start, start + len(rows))] = -np.inf
        nearest = torch.topk(torch.from_numpy(approximate), neighbours, sorted=False)
        correlation, others = nearest.values.numpy(), nearest.indices.numpy()
        candidates = np.nonzero(correlation >= MIN_CORRELATION - _SKETCH_ERROR)
        correlation[candidates] = _exact(whitened, start + candidates[0], others[candidates])
        yield start, others, correlation


def _mirrored(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::-1]


def _sketches(whitened: np.ndarray, projections: np.ndarray) -> _Fourier:
    """The projected transform of all images; by columns, as products read it."""
    parts = [_Fourier.of(whitened[start : start + _BLOCK], projections) for start in range(0, len(whitened), _BLOCK)]
    names = [field.name for field in fields(_Fourier)]
    return _Fourier(*(np.concatenate([getattr(part, name).T for part in parts], axis=1).T for name in names))


def _approximate(rows: np.ndarray, sketches: _Fourier, projections: np.ndarray) -> np.ndarray:
    """Correlations (B, N) of images (B, S, S) with the images of all sketches, approximately."""
    plain, mirrored = (
        _Fourier.of(images, projections).best_correlation(sketches, _products) for images in (rows, _mirrored(rows))
    )
    return np.maximum(plain, mirrored, out=plain)


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """All inner products (B, N) of rows, by PyTorch, which is up to 1.5 times as fast as NumPy here."""
    products = np.empty((len(one), len(other)), np.float32)
    torch.mm(torch.from_numpy(one), torch.from_numpy(other).T, out=torch.from_numpy(products))
    return products


def _exact(whitened: np.ndarray, firsts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Correlations (P,) of pairs of rows."""
    lower, higher, correlation = np.minimum(firsts, seconds), np.maximum(firsts, seconds), np.empty(len(firsts))
    for start in range(0, len(firsts), _BLOCK):
        some = slice(start, start + _BLOCK)
        images, others = whitened[lower[some]], _Fourier.of(whitened[higher[some]])
        correlation[some] = np.maximum(
            *(
                _Fourier.of(oriented).best_correlation(others, lambda one, other: np.einsum("pk,pk->p", one, other))
                for oriented in (images, _mirrored(images))
            )
        )
    return correlation
