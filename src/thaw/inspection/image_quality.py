"""Images of doubtful quality: dark, bright, blurred, empty or of an odd size, compared with the rest of the set."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.inspection.outliers import robust_z_scores

QualityIssue = Literal["dark", "bright", "blurred", "empty", "odd size"]

_MIN_Z_SCORE = 4.0
"""Robust z-score from which an image stands out from the set."""

_MAX_DARK, _MIN_BRIGHT, _MIN_DEVIATION = 60.0, 195.0, 1.5
"""Grey levels 0..255: the highest mean of a dark image, the lowest of a bright one, and the standard deviation below
which an image is empty."""

_ODD_RATIO = 2.5
"""How many times the median, up or down, an area or an aspect ratio is odd."""

_MAX_ODD_FRACTION = 0.05
"""Where more images than this are of another size, sizes simply vary."""


@dataclass(frozen=True)
class QualityFlag:
    """An image that stands out from the set.

    Attributes:
        row: Its row in the manifest.
        value, median: Its own value and the median of the set, in `unit`.
    """

    row: int
    issue: QualityIssue
    value: float
    median: float
    unit: str


def find_quality_flags(
    pixels: PixelStore, manifest: Manifest, rows: Sequence[int], workers: int
) -> tuple[QualityFlag, ...]:
    """Flag images that stand out in brightness, sharpness, contrast or size; one image may have several flags.

    Args:
        pixels: Decoded images.
        manifest: Manifest with the width and height of each file.
        rows: Readable rows.
        workers: Number of threads.

    Returns:
        The flags in the order of the rows.
    """
    if not rows:
        return ()
    with ThreadPoolExecutor(workers) as pool:
        statistics = list(pool.map(lambda row: _statistics(pixels.read(row)), rows))
    mean, deviation, sharpness = np.array(statistics).T
    brightness_scores, sharpness_scores = robust_z_scores(mean), robust_z_scores(sharpness)
    empty = deviation < _MIN_DEVIATION
    checks: tuple[tuple[QualityIssue, np.ndarray, np.ndarray, str], ...] = (
        ("dark", (brightness_scores < -_MIN_Z_SCORE) & (mean < _MAX_DARK) & ~empty, mean, "mean grey level"),
        ("bright", (brightness_scores > _MIN_Z_SCORE) & (mean > _MIN_BRIGHT) & ~empty, mean, "mean grey level"),
        ("blurred", (sharpness_scores < -_MIN_Z_SCORE) & ~empty, sharpness, "log sharpness"),
        ("empty", empty, deviation, "standard deviation of grey levels"),
    )
    flags = [
        QualityFlag(rows[int(index)], issue, float(values[index]), float(np.median(values)), unit)
        for issue, flagged, values, unit in checks
        for index in np.flatnonzero(flagged)
    ]
    return tuple(sorted([*flags, *_odd_sizes(manifest, rows)], key=lambda flag: (flag.row, flag.issue)))


def _statistics(pixels: np.ndarray) -> tuple[float, float, float]:
    """Mean and standard deviation of the grey levels, and sharpness: log of the Laplacian's variance over theirs."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    deviation = float(grey.std())
    edges = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return float(grey.mean()), deviation, float(np.log((edges + 1e-3) / (deviation**2 + 1.0)))


def _odd_sizes(manifest: Manifest, rows: Sequence[int]) -> list[QualityFlag]:
    """At most one flag an image: odd in area, else in aspect ratio."""
    widths, heights = (np.array(manifest.column(name), float)[rows] for name in ("width", "height"))
    flags: dict[int, QualityFlag] = {}
    for values, unit in ((widths * heights, "pixels"), (widths / heights, "width / height")):
        median = float(np.median(values))
        odd = np.abs(np.log(values / median)) > np.log(_ODD_RATIO)
        if odd.mean() <= _MAX_ODD_FRACTION:
            for index in np.flatnonzero(odd):
                row = rows[int(index)]
                flags.setdefault(row, QualityFlag(row, "odd size", float(values[index]), median, unit))
    return list(flags.values())
