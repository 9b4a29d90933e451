"""Nearest neighbours by cosine similarity of pooled features."""

from __future__ import annotations

import numpy as np
import torch

_QUERIES, _REFERENCE_ROWS = 1024, 8192
"""Rows compared at a time: 32 MB of similarities, independent of the number of images."""


def nearest(features: np.ndarray, reference: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of `reference` for each row of `features`, by cosine similarity.

    Args:
        features: (N, W) of any float type.
        reference: (M, W) of any float type; converted in parts.
        k: Neighbours per row.

    Returns:
        Indices (N, k) int64 and similarities (N, k) float32 in -1..1, most similar first, ties in row order; M columns
        if there are fewer than k rows. A row of zeros has similarity 0 to every row.
    """
    columns = min(k, len(reference))
    indices = np.zeros((len(features), columns), dtype=np.int64)
    similarities = np.full((len(features), columns), -np.inf, dtype=np.float32)
    for first in range(0, len(reference), _REFERENCE_ROWS):
        part = unit_rows(reference[first : first + _REFERENCE_ROWS])
        for start in range(0, len(features), _QUERIES):
            rows = slice(start, start + _QUERIES)
            similarity = torch.from_numpy(unit_rows(features[rows])) @ torch.from_numpy(part).T
            places, similar = _largest(similarity.numpy(), columns)
            candidates = np.hstack([similarities[rows], similar])
            known = np.hstack([indices[rows], first + places])
            order = np.argsort(-candidates, axis=1, kind="stable")[:, :columns]
            similarities[rows] = np.take_along_axis(candidates, order, axis=1)
            indices[rows] = np.take_along_axis(known, order, axis=1)
    return indices, similarities


def _largest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of the k largest of each row (N, M), largest first; overwrites `values`.

    Finding the maximum k times is several times faster than sorting rows of thousands.
    """
    every = np.arange(len(values))
    places = np.empty((len(values), min(k, values.shape[1])), dtype=np.int64)
    found = np.empty(places.shape, dtype=values.dtype)
    for column in range(places.shape[1]):
        places[:, column] = values.argmax(axis=1)
        found[:, column] = values[every, places[:, column]]
        values[every, places[:, column]] = -np.inf
    return places, found


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (N, W) scaled to length one, float32; a row of zeros stays zero."""
    values = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0, length, 1.0))
