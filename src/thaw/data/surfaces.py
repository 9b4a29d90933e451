"""Synthetic images of rolled-steel surfaces with defects, for `thaw demo`.

A surface is a height map under oblique light. All have rolling grain, waviness and handling marks; a defect changes the
height and the brightness of the metal. 8-bit grey, as from line-scan cameras on rolling mills.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thaw.errors import DataError

Box = tuple[int, int, int, int]

_SUPERSAMPLING = 4
"""Factor by which the canvas of a defect is larger, so that thin lines are anti-aliased."""
_VISIBLE_DIFFERENCE = 5.0
"""Difference in grey levels from which a pixel counts as part of a defect."""


@dataclass(frozen=True)
class SurfaceImage:
    """One written image.

    Attributes:
        file: The image file.
        label: Its class.
        centre: Centre (x, y) of the defect in pixels; `None` without a defect.
        box: (left, top, right, bottom) of the defect in pixels, right and bottom exclusive; `None` without a defect.
    """

    file: Path
    label: str
    centre: tuple[float, float] | None
    box: Box | None


@dataclass(frozen=True)
class _Defect:
    """Depth in the height map, and loss of brightness in grey levels; both (size, size) float32."""

    depth: np.ndarray
    darkness: np.ndarray


def write_surfaces(
    folder: Path,
    images_per_class: int = 60,
    size: int = 160,
    seed: int = 0,
    classes: tuple[str, ...] = ("ok", "scratch", "pits", "stain", "crack"),
) -> list[SurfaceImage]:
    """Write images `folder`/CLASS/NNN.png, (size, size) grey; the same arguments give the same pixels on one machine.

    Raises:
        DataError: A class is unknown.
    """
    unknown = [name for name in classes if name not in _DEFECTS]
    if unknown:
        raise DataError(f"unknown class of surfaces {unknown[0]!r}; known are {', '.join(_DEFECTS)}")
    written = []
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(images_per_class):
            rng = np.random.default_rng((seed, list(_DEFECTS).index(label), number))
            file = folder / label / f"{number:03d}.png"
            written.append(_write_one(file, label, size, rng))
    return written


def _write_one(file: Path, label: str, size: int, rng: np.random.Generator) -> SurfaceImage:
    defect = _DEFECTS[label](size, rng)
    pixels = _render(size, defect, rng)
    file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    rows, columns = np.nonzero(np.abs(defect.darkness) >= _VISIBLE_DIFFERENCE)
    if not len(rows):
        return SurfaceImage(file, label, None, None)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return SurfaceImage(file, label, (float(columns.mean()), float(rows.mean())), box)


def _render(size: int, defect: _Defect, rng: np.random.Generator) -> np.ndarray:
    """The camera image of the surface, (size, size) uint8."""
    angle = rng.normal(0.0, 0.06) + (np.pi / 2 if rng.random() < 0.25 else 0.0)
    metal = _rolled_metal(size, angle, rng)
    height = metal - defect.depth
    light = rng.uniform(0, 2 * np.pi)
    slope_right = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_down = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    relief = rng.uniform(14, 22) * (np.cos(light) * slope_right + np.sin(light) * slope_down)
    grey = rng.uniform(85, 160) + 5 * metal + relief - defect.darkness
    noisy = grey * _lighting(size, rng) + rng.normal(0, rng.uniform(1.5, 3.5), (size, size))
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def _rolled_metal(size: int, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Height of metal without defects, (size, size) float32: noise along the rolling direction at several scales."""
    grain = 0.55 * _noise(size, 14.0, 0.5, angle, rng)
    bands = rng.uniform(0.2, 0.7) * _noise(size, 70.0, 2.5, angle, rng)
    mottle = rng.uniform(0.2, 0.6) * _noise(size, 9.0, 6.0, angle, rng)
    grit = 0.35 * _noise(size, 0.8, 0.6, angle, rng)
    return grain + bands + mottle + grit - _handling_marks(size, angle, rng)


def _handling_marks(size: int, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Depth of marks that are not defects: a few faint hairlines along the rolling direction, and dust."""
    marks = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(0, 4)):
        direction, middle = angle + rng.normal(0, 0.04), rng.uniform(0, 1, 2) * size
        ends = middle + np.outer([-1, 1], [np.cos(direction), -np.sin(direction)]) * rng.uniform(0.1, 0.5) * size
        marks += _stroke(size, ends, np.full(2, 0.6), np.full(2, rng.uniform(0.8, 2.5)))
    specks = rng.integers(0, size, (2, rng.integers(0, 7)))
    marks[specks[0], specks[1]] = rng.uniform(-6, 6, specks.shape[1])
    return cv2.GaussianBlur(marks, (0, 0), 0.5)


def _lighting(size: int, rng: np.random.Generator) -> np.ndarray:
    """A factor per pixel: light from one side, and vignetting of the lens."""
    down, right = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    side = rng.uniform(0, 2 * np.pi)
    lamp = rng.uniform(0.02, 0.18) * (np.cos(side) * right + np.sin(side) * down)
    lens = rng.uniform(0.0, 0.06) * (right**2 + down**2)
    return (1.0 + lamp - lens).astype(np.float32)


def _noise(size: int, along: float, across: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """White noise blurred by these standard deviations along and across a direction; mean 0, standard deviation 1."""
    wide = int(size * 1.5)
    stretched = cv2.GaussianBlur(
        rng.standard_normal((wide, wide), dtype=np.float32), (0, 0), sigmaX=along, sigmaY=across
    )
    turn = cv2.getRotationMatrix2D(((wide - 1) / 2, (wide - 1) / 2), np.degrees(angle), 1.0)
    turn[:, 2] = turn[:, 2] - (wide - size) / 2
    turned = cv2.warpAffine(stretched, turn, (size, size), flags=cv2.INTER_CUBIC)
    return (turned - turned.mean()) / turned.std()


def _random_centre(size: int, rng: np.random.Generator) -> np.ndarray:
    """The centre of a defect, (x, y), far enough from the edges to survive a centre crop."""
    return rng.uniform(0.25, 0.75, 2) * size


def _no_defect(size: int, rng: np.random.Generator) -> _Defect:
    """No defect."""
    return _Defect(np.zeros((size, size), np.float32), np.zeros((size, size), np.float32))


def _scratch(size: int, rng: np.random.Generator) -> _Defect:
    """One to three thin, slightly bent parallel grooves, tapering towards the ends, bright or dark."""
    direction, length = rng.uniform(0, np.pi), rng.uniform(0.3, 0.75) * size
    along_axis, normal = (
        np.array([np.cos(direction), np.sin(direction)]),
        np.array([-np.sin(direction), np.cos(direction)]),
    )
    middle, bend = _random_centre(size, rng), rng.normal(0, 0.04) * size
    along = np.linspace(-0.5, 0.5, 40)
    taper = np.sqrt(np.cos(np.pi * along).clip(0))
    groove = np.zeros((size, size), np.float32)
    for _ in range(rng.choice([1, 1, 2, 3])):
        start = middle + normal * rng.normal(0, 0.02) * size + along_axis * rng.normal(0, 0.06) * size
        points = start + np.outer(along, along_axis) * length + np.outer(bend * (4 * along**2 - 0.5), normal)
        pressure = taper * rng.uniform(0.5, 1.0, len(along))
        groove = np.maximum(groove, _stroke(size, points, 0.4 + rng.uniform(0.6, 1.8) * taper, pressure))
    strength = rng.uniform(0.5, 1.0)
    return _Defect(4.0 * strength * groove, rng.choice([-45.0, -30.0, 25.0]) * strength * groove)


def _crack(size: int, rng: np.random.Generator) -> _Defect:
    """A dark jagged line with a few thinner branches."""
    direction, steps = rng.uniform(0, 2 * np.pi), int(rng.integers(22, 42))
    width = rng.uniform(0.9, 1.7)
    trunk = _random_walk(size, _random_centre(size, rng), direction, steps, rng)
    trunk += _random_centre(size, rng) - trunk.mean(axis=0)
    gap = _stroke(size, trunk, np.linspace(width, 0.5, len(trunk)), np.ones(len(trunk)))
    for _ in range(rng.integers(1, 4)):
        joint = int(rng.integers(4, len(trunk) - 2))
        right, down = trunk[joint] - trunk[joint - 3]
        branch_direction = np.arctan2(down, right) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        branch = _random_walk(size, trunk[joint], branch_direction, int(rng.integers(5, 14)), rng)
        thin = np.linspace(0.7 * width, 0.4, len(branch))
        gap = np.maximum(gap, _stroke(size, branch, thin, np.linspace(0.9, 0.4, len(branch))))
    strength = rng.uniform(0.55, 1.0)
    return _Defect(4.0 * strength * gap, 70.0 * strength * gap)


def _random_walk(size: int, start: np.ndarray, direction: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    """A random walk of short steps with a preferred direction, (steps + 1, 2)."""
    directions = direction + rng.normal(0, 0.55, steps) + np.cumsum(rng.normal(0, 0.12, steps))
    lengths = rng.uniform(0.01, 0.025, steps) * size
    strides = np.stack([np.cos(directions), np.sin(directions)], axis=1) * lengths[:, None]
    return np.vstack([start, start + np.cumsum(strides, axis=0)])


def _pits(size: int, rng: np.random.Generator) -> _Defect:
    """A loose cluster of small dark pits of different sizes."""
    middle, spread = _random_centre(size, rng), rng.uniform(0.05, 0.13, 2) * size
    canvas = np.zeros((size * _SUPERSAMPLING, size * _SUPERSAMPLING), np.float32)
    for _ in range(rng.integers(5, 18)):
        place = (middle + rng.normal(0, 1, 2) * spread) * _SUPERSAMPLING
        diameters = 2 * rng.uniform(1.1, 3.0) * rng.uniform(0.7, 1.3, 2) * _SUPERSAMPLING
        ellipse = (place.tolist(), diameters.tolist(), rng.uniform(0, 180))
        cv2.ellipse(canvas, ellipse, rng.uniform(0.5, 1.0), cv2.FILLED)
    hollows = cv2.GaussianBlur(_downsampled(canvas), (0, 0), 0.7)
    strength = rng.uniform(0.6, 1.0)
    return _Defect(7.0 * strength * hollows, 40.0 * strength * hollows)


def _stain(size: int, rng: np.random.Generator) -> _Defect:
    """A flat stain with an irregular outline and a dark rim, mostly darker than the metal."""
    down, right = np.mgrid[:size, :size]
    middle, radii = _random_centre(size, rng), rng.uniform(0.12, 0.26, 2) * size
    distance = np.hypot((right - middle[0]) / radii[0], (down - middle[1]) / radii[1])
    lobes = 0.22 * _noise(size, 0.06 * size, 0.06 * size, 0.0, rng) + 0.07 * _noise(size, 3, 3, 0.0, rng)
    outline, softness = distance + lobes, rng.uniform(0.04, 0.15)
    inside = 1 / (1 + np.exp((outline - 1) / softness))
    tide = np.exp(-(((outline - 0.95) / (1.5 * softness)) ** 2))
    cloud = rng.uniform(0.5, 1.0) + 0.25 * _noise(size, 6, 6, 0.0, rng)
    tone = rng.uniform(20, 40) * rng.choice([1.0, 1.0, 1.0, -0.8])
    blot = tone * (inside * cloud + rng.uniform(0.1, 0.8) * tide)
    return _Defect(np.zeros((size, size), np.float32), blot.astype(np.float32))


def _stroke(size: int, points: np.ndarray, widths: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """A line (size, size) float32 through points (K, 2), with a width in pixels and a strength at each."""
    canvas = np.zeros((size * _SUPERSAMPLING, size * _SUPERSAMPLING), np.float32)
    corners = np.rint(points * _SUPERSAMPLING).astype(int).tolist()
    for start, end, width, strength in zip(corners, corners[1:], widths, strengths, strict=False):
        cv2.line(canvas, start, end, float(strength), max(1, round(width * _SUPERSAMPLING)))
    return _downsampled(canvas)


def _downsampled(canvas: np.ndarray) -> np.ndarray:
    side = len(canvas) // _SUPERSAMPLING
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)


_DEFECTS: dict[str, Callable[[int, np.random.Generator], _Defect]] = {
    "ok": _no_defect,
    "scratch": _scratch,
    "pits": _pits,
    "stain": _stain,
    "crack": _crack,
}
