"""The most similar thumbnails of each, in any of eight orientations.

Up to `MOST_COMPARED` images all pairs are compared. Of more, only those in the same cells, because the time for all
pairs grows with the square of their number: one core compares 7 million pairs a second. Of 22,721 photos, their crops
and their copies, cells find all of the 2,915 pairs that are found otherwise, and all but five in 711 cells, as 180,000
images have. Where many images are alike, they are in the same cell, which then takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch

MOST_COMPARED = 16_384
"""Images of which all pairs are compared."""

NEIGHBOURS = 32
"""How many of the most similar images are found for each."""

MIN_CORRELATION = 0.6
"""Lowest correlation of two near-duplicates: from here on it is exact."""

_SKETCH_SIZE, _SKETCH_ERROR = 192, 0.2
_BLOCK = 1024
_PAIRS_AT_ONCE = 1 << 21
"""Pairs of images whose correlations are in memory at a time."""

_CELL, _PROBES = 256, 16
"""Images in a cell, and how many cells an image is compared with."""

_HALF_ROOT = np.float32(0.5**0.5)


class Neighbours(NamedTuple):
    """Of some images (B,) the most similar others (B, K), and their correlations (B, K).

    done: what fraction of the work is done, 0..1.
    """

    rows: np.ndarray
    others: np.ndarray
    correlation: np.ndarray
    done: float


def nearest(whitened: np.ndarray) -> Iterator[Neighbours]:
    """The `NEIGHBOURS` most similar images of each, or of each in one cell after the other, which share no image.

    Args:
        whitened: (N, S, S) float32, of length one.
    """
    quarter, size = whitened.shape[1] * whitened.shape[2] // 4, _SKETCH_SIZE // 4
    projections = np.random.default_rng(0).normal(0, size**-0.5, (3, quarter, size)).astype(np.float32)
    of = _of_all if len(whitened) <= MOST_COMPARED else _of_cells
    return of(whitened, projections)


def _of_all(whitened: np.ndarray, projections: np.ndarray) -> Iterator[Neighbours]:
    """All pairs are compared by random projections, which preserve correlations to +-0.07 (Johnson and Lindenstrauss
    1984), and candidates by the whole thumbnails."""
    everything, sketches = np.arange(len(whitened)), _sketches(whitened, projections, _plain).by_columns()
    for rows in _in_blocks(everything, len(everything)):
        oriented = (Fourier.of(orient(whitened[rows]), projections) for orient in (_plain, _mirrored))
        approximate = _approximate(oriented, sketches)
        yield _best(whitened, rows, everything, approximate, (int(rows[-1]) + 1) / len(whitened))


def _of_cells(whitened: np.ndarray, projections: np.ndarray) -> Iterator[Neighbours]:
    """Each image is compared with those in the cells that it is nearest to, and so is its mirror image.

    The images of a cell are nearest to the same one of some that are drawn at random, by the part that rotations leave
    as it is. A copy is nearest to the same one, or nearly so.
    """
    drawn = np.random.default_rng(0).choice(len(whitened), -(-len(whitened) // _CELL), replace=False)
    pivots = _invariant(whitened[drawn])
    sketches = [_sketches(whitened, projections, oriented) for oriented in (_plain, _mirrored)]
    probes = np.hstack([_nearest_pivots(whitened, pivots, oriented) for oriented in (_plain, _mirrored)])
    homes, visitors = _Groups.of(probes[:, :1], len(pivots)), _Groups.of(probes, len(pivots))
    for cell in range(len(pivots)):
        others = homes.at(cell)
        of_cell = sketches[0].part(others)
        # An image and its mirror image may be near to the same cell.
        for rows in _in_blocks(np.unique(visitors.at(cell)), len(others)):
            approximate = _approximate((each.part(rows) for each in sketches), of_cell)
            yield _best(whitened, rows, others, approximate, (cell + 1) / len(pivots))


@dataclass(frozen=True)
class _Groups:
    """Images by the groups that they are in.

    members: those of one group after the other. ends: where each group ends, after a zero.
    """

    members: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, count: int) -> _Groups:
        """Of images that are in the groups (N, K) int below `count`."""
        ends = np.concatenate([[0], np.cumsum(np.bincount(groups.ravel(), minlength=count))])
        return cls(np.argsort(groups, axis=None, kind="stable") // groups.shape[1], ends)

    def at(self, group: int) -> np.ndarray:
        """The members of a group, ascending."""
        return self.members[self.ends[group] : self.ends[group + 1]]


def _in_blocks(rows: np.ndarray, others: int) -> Iterator[np.ndarray]:
    """Rows that are compared with so many others at a time."""
    block = min(_BLOCK, max(16, _PAIRS_AT_ONCE // max(1, others)))
    for start in range(0, len(rows), block):
        yield rows[start : start + block]


def _invariant(images: np.ndarray) -> np.ndarray:
    """The part (N, S * S / 4) of images that rotations leave as it is, of length one."""
    constant = Fourier.of(images).constant
    return constant / np.maximum(np.linalg.norm(constant, axis=1, keepdims=True), 1e-12)


def _nearest_pivots(
    whitened: np.ndarray, pivots: np.ndarray, oriented: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(N, `_PROBES`) int64: which pivots each image is nearest to, the nearest first."""
    found = []
    for start in range(0, len(whitened), _BLOCK):
        products = _products(_invariant(oriented(whitened[start : start + _BLOCK])), pivots)
        found.append(torch.topk(torch.from_numpy(products), min(_PROBES, len(pivots))).indices.numpy())
    return np.concatenate(found)


def _best(
    whitened: np.ndarray, rows: np.ndarray, others: np.ndarray, approximate: np.ndarray, done: float
) -> Neighbours:
    """The most similar of some others (M,), ascending, for rows (B,), given approximate correlations (B, M), which are
    changed."""
    if not len(others):
        return Neighbours(rows, np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), np.float32), done)
    own = np.minimum(np.searchsorted(others, rows), len(others) - 1)
    is_there = np.flatnonzero(others[own] == rows)
    approximate[is_there, own[is_there]] = -np.inf
    highest = torch.topk(torch.from_numpy(approximate), min(NEIGHBOURS, len(others)), sorted=False)
    correlation, found = highest.values.numpy(), others[highest.indices.numpy()]
    candidates = np.nonzero(correlation >= MIN_CORRELATION - _SKETCH_ERROR)
    correlation[candidates] = _exact(whitened, rows[candidates[0]], found[candidates])
    return Neighbours(rows, found, correlation, done)


@dataclass(frozen=True)
class Fourier:
    """N images as their discrete Fourier transform over the four rotations, which permute the quadrants of an image.

    Two images are compared in all four rotations in the time of one and a half. Each array is (N, K): `turning` holds
    the real and the imaginary part of its component, and `turned` those of the image after a quarter turn.
    """

    constant: np.ndarray
    alternating: np.ndarray
    turning: np.ndarray
    turned: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, projections: np.ndarray | None = None) -> Fourier:
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

    def part(self, rows: np.ndarray) -> Fourier:
        """That of some of the images."""
        return Fourier(*(getattr(self, field.name)[rows] for field in fields(Fourier)))

    def by_columns(self) -> Fourier:
        """The same in the order in memory in which products with many images read it."""
        return Fourier(*(np.asfortranarray(getattr(self, field.name)) for field in fields(Fourier)))

    def best_correlation(self, others: Fourier, product: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """The highest correlation over all rotations; `product` sums over the second axis of two arrays."""
        best = product(self.constant, others.constant)
        alternating = product(self.alternating, others.alternating)
        half_turns = np.abs(product(self.turning, others.turning))
        quarter_turns = np.abs(product(self.turning, others.turned))
        half_turns += alternating
        quarter_turns -= alternating
        best += np.maximum(half_turns, quarter_turns, out=half_turns)
        return best


def _plain(images: np.ndarray) -> np.ndarray:
    return images


def _mirrored(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::-1]


def _sketches(whitened: np.ndarray, projections: np.ndarray, oriented: Callable[[np.ndarray], np.ndarray]) -> Fourier:
    """The projected transform of all images in an orientation."""
    blocks = (whitened[start : start + _BLOCK] for start in range(0, len(whitened), _BLOCK))
    parts = [Fourier.of(oriented(block), projections) for block in blocks]
    return Fourier(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Fourier)))


def _approximate(oriented: Iterable[Fourier], others: Fourier) -> np.ndarray:
    """Correlations (B, M) of images, given plain and mirrored, with others, all as sketches."""
    plain, mirrored = (each.best_correlation(others, _products) for each in oriented)
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
        images, others = whitened[lower[some]], Fourier.of(whitened[higher[some]])
        correlation[some] = np.maximum(
            *(
                Fourier.of(oriented).best_correlation(others, lambda one, other: np.einsum("pk,pk->p", one, other))
                for oriented in (images, _mirrored(images))
            )
        )
    return correlation
