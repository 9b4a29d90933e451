"""Pictures that may be no good: dark, bright, blurred, empty, of an odd size, each beside what is usual in the set."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore

FlagKind = Literal["dark", "bright", "blurred", "empty", "odd size"]

FAR = 4.0
"""Robust deviations (1.4826 times the median absolute deviation) from the median beyond which a picture stands out."""

_DARK, _BRIGHT, _EMPTY = 60.0, 195.0, 1.5
"""Grey levels 0..255: a mean that can be called dark, one that can be called bright, a deviation that is nothing."""

_ODD = 2.5
"""How many times larger or smaller than usual, in area or in the ratio of its sides."""


@dataclass(frozen=True)
class Flag:
    """A picture that stands out: its row, in what, its own figure and the usual one, in `unit`."""

    row: int
    kind: FlagKind
    value: float
    usual: float
    unit: str


@dataclass(frozen=True)
class _Look:
    """Mean and deviation of the grey levels, and their sharpness: log of the Laplacian's share of the variance."""

    mean: float
    deviation: float
    sharpness: float


def find_flags(pixels: PixelStore, manifest: Manifest, rows: Sequence[int], workers: int) -> tuple[Flag, ...]:
    """Flags of readable rows, by row; a picture may have several."""
    with ThreadPoolExecutor(workers) as pool:
        looks = list(pool.map(lambda row: _look(pixels.read(row)), rows))
    if not looks:
        return ()
    means, deviations, sharpness = (
        np.array([getattr(look, name) for look in looks]) for name in ("mean", "deviation", "sharpness")
    )
    empty = deviations < _EMPTY
    found = {
        "dark": (robust_distance(means) < -FAR) & (means < _DARK) & ~empty,
        "bright": (robust_distance(means) > FAR) & (means > _BRIGHT) & ~empty,
        "blurred": (robust_distance(sharpness) < -FAR) & ~empty,
        "empty": empty,
    }
    values = {"dark": means, "bright": means, "blurred": sharpness, "empty": deviations}
    units = {
        "dark": "mean grey level",
        "bright": "mean grey level",
        "blurred": "log sharpness",
        "empty": "deviation of grey levels",
    }
    flags = [
        Flag(rows[int(index)], kind, float(values[kind][index]), float(np.median(values[kind])), units[kind])  # type: ignore[arg-type]
        for kind, which in found.items()
        for index in np.flatnonzero(which)
    ]
    return tuple(sorted([*flags, *_odd_sizes(manifest, rows)], key=lambda flag: (flag.row, flag.kind)))


def _look(pixels: np.ndarray) -> _Look:
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    deviation = float(grey.std())
    edges = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return _Look(float(grey.mean()), deviation, float(np.log((edges + 1e-3) / (deviation**2 + 1.0))))


def _odd_sizes(manifest: Manifest, rows: Sequence[int]) -> list[Flag]:
    widths, heights = (np.array(manifest.column(name), float)[rows] for name in ("width", "height"))
    flags: dict[int, Flag] = {}
    for values, unit in ((widths * heights, "pixels"), (widths / heights, "width over height")):
        usual = float(np.median(values))
        odd = np.abs(np.log(values / usual)) > np.log(_ODD)
        # Where many are of another size, sizes simply vary.
        if odd.mean() <= 0.05:
            for index in np.flatnonzero(odd):
                row = rows[int(index)]
                flags.setdefault(row, Flag(row, "odd size", float(values[index]), usual, unit))
    return list(flags.values())


def robust_distance(values: np.ndarray) -> np.ndarray:
    """How many robust deviations each value (N,) lies above the median, negative below it."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    distance: np.ndarray = (values - middle) / max(float(spread), 1e-6)
    return distance
