"""A small set of rolled-steel surfaces with planted defects, made of numbers alone, for `thaw demo`.

A surface is a height map under slanted light. Rolling grain, waviness and handling marks are on every one; a
defect is dug into the height and stains the metal. Grey, 8 bit, as line-scan cameras on rolling mills see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thaw.errors import DataError

Box = tuple[int, int, int, int]

_FINE = 4
"""Defects are drawn on a canvas this many times finer, then averaged, so that a thin line has soft edges."""
_VISIBLE = 5.0
"""Grey values that a pixel must differ by to count as part of a defect."""


@dataclass(frozen=True)
class SurfaceImage:
    """One written image.

    centre (x, y) and box (left, top, right, bottom; right and bottom lie just outside) of its defect are in
    pixels; None where the surface is sound.
    """

    file: Path
    label: str
    centre: tuple[float, float] | None
    box: Box | None


@dataclass(frozen=True)
class _Defect:
    """How deep the metal is dug, and how many grey values it loses; both (size, size) float32."""

    depth: np.ndarray
    darkness: np.ndarray


def write_surfaces(
    folder: Path,
    images_per_class: int = 60,
    size: int = 160,
    seed: int = 0,
    classes: tuple[str, ...] = ("ok", "scratch", "pits", "stain", "crack"),
) -> list[SurfaceImage]:
    """Write `folder`/CLASS/NNN.png, (size, size) grey, and say where each defect lies.

    Equal arguments give equal pixels on one machine. Raises `DataError` for a class that cannot be drawn.
    """
    unknown = [name for name in classes if name not in _DRAWN]
    if unknown:
        raise DataError(f"no surface with {unknown[0]!r} can be drawn; there are {', '.join(_DRAWN)}")
    written = []
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(images_per_class):
            rng = np.random.default_rng((seed, list(_DRAWN).index(label), number))
            file = folder / label / f"{number:03d}.png"
            written.append(_write_one(file, label, size, rng))
    return written


def _write_one(file: Path, label: str, size: int, rng: np.random.Generator) -> SurfaceImage:
    defect = _DRAWN[label](size, rng)
    pixels = _photograph(size, defect, rng)
    file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    rows, columns = np.nonzero(np.abs(defect.darkness) >= _VISIBLE)
    if not len(rows):
        return SurfaceImage(file, label, None, None)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return SurfaceImage(file, label, (float(columns.mean()), float(rows.mean())), box)


def _photograph(size: int, defect: _Defect, rng: np.random.Generator) -> np.ndarray:
    """The surface as a camera sees it, (size, size) uint8."""
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
    """Height of sound metal, (size, size) float32: noise along the rolling direction at several scales."""
    grain = 0.55 * _noise(size, 14.0, 0.5, angle, rng)
    bands = rng.uniform(0.2, 0.7) * _noise(size, 70.0, 2.5, angle, rng)
    mottle = rng.uniform(0.2, 0.6) * _noise(size, 9.0, 6.0, angle, rng)
    grit = 0.35 * _noise(size, 0.8, 0.6, angle, rng)
    return grain + bands + mottle + grit - _handling_marks(size, angle, rng)


def _handling_marks(size: int, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Depth of what is no defect: a few faint hairlines along the rolling direction, and dust."""
    marks = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(0, 4)):
        way, middle = angle + rng.normal(0, 0.04), rng.uniform(0, 1, 2) * size
        ends = middle + np.outer([-1, 1], [np.cos(way), -np.sin(way)]) * rng.uniform(0.1, 0.5) * size
        marks += _stroke(size, ends, np.full(2, 0.6), np.full(2, rng.uniform(0.8, 2.5)))
    specks = rng.integers(0, size, (2, rng.integers(0, 7)))
    marks[specks[0], specks[1]] = rng.uniform(-6, 6, specks.shape[1])
    return cv2.GaussianBlur(marks, (0, 0), 0.5)


def _lighting(size: int, rng: np.random.Generator) -> np.ndarray:
    """A factor for each pixel: a lamp from one side, and the lens darker towards the corners."""
    down, right = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    side = rng.uniform(0, 2 * np.pi)
    lamp = rng.uniform(0.02, 0.18) * (np.cos(side) * right + np.sin(side) * down)
    lens = rng.uniform(0.0, 0.06) * (right**2 + down**2)
    return (1.0 + lamp - lens).astype(np.float32)


def _noise(size: int, along: float, across: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """White noise blurred by these standard deviations along and across a direction; mean 0, deviation 1."""
    wide = int(size * 1.5)
    drawn_out = cv2.GaussianBlur(
        rng.standard_normal((wide, wide), dtype=np.float32), (0, 0), sigmaX=along, sigmaY=across
    )
    turn = cv2.getRotationMatrix2D(((wide - 1) / 2, (wide - 1) / 2), np.degrees(angle), 1.0)
    turn[:, 2] = turn[:, 2] - (wide - size) / 2
    turned = cv2.warpAffine(drawn_out, turn, (size, size), flags=cv2.INTER_CUBIC)
    return (turned - turned.mean()) / turned.std()


def _place(size: int, rng: np.random.Generator) -> np.ndarray:
    """The middle of a defect, (x, y): not so near the edge that a centre crop could lose it."""
    return rng.uniform(0.25, 0.75, 2) * size


def _sound(size: int, rng: np.random.Generator) -> _Defect:
    """Nothing at all."""
    return _Defect(np.zeros((size, size), np.float32), np.zeros((size, size), np.float32))


def _scratch(size: int, rng: np.random.Generator) -> _Defect:
    """One to three thin, slightly bent grooves side by side, thinner towards their ends, bright or dark."""
    way, length = rng.uniform(0, np.pi), rng.uniform(0.3, 0.75) * size
    ahead, aside = np.array([np.cos(way), np.sin(way)]), np.array([-np.sin(way), np.cos(way)])
    middle, bend = _place(size, rng), rng.normal(0, 0.04) * size
    along = np.linspace(-0.5, 0.5, 40)
    taper = np.sqrt(np.cos(np.pi * along).clip(0))
    groove = np.zeros((size, size), np.float32)
    for _ in range(rng.choice([1, 1, 2, 3])):
        start = middle + aside * rng.normal(0, 0.02) * size + ahead * rng.normal(0, 0.06) * size
        points = start + np.outer(along, ahead) * length + np.outer(bend * (4 * along**2 - 0.5), aside)
        pressure = taper * rng.uniform(0.5, 1.0, len(along))
        groove = np.maximum(groove, _stroke(size, points, 0.4 + rng.uniform(0.6, 1.8) * taper, pressure))
    strength = rng.uniform(0.5, 1.0)
    return _Defect(4.0 * strength * groove, rng.choice([-45.0, -30.0, 25.0]) * strength * groove)


def _crack(size: int, rng: np.random.Generator) -> _Defect:
    """A dark jagged line that wanders, with a few thinner branches."""
    way, steps = rng.uniform(0, 2 * np.pi), int(rng.integers(22, 42))
    width = rng.uniform(0.9, 1.7)
    trunk = _wander(size, _place(size, rng), way, steps, rng)
    trunk += _place(size, rng) - trunk.mean(axis=0)
    gap = _stroke(size, trunk, np.linspace(width, 0.5, len(trunk)), np.ones(len(trunk)))
    for _ in range(rng.integers(1, 4)):
        joint = int(rng.integers(4, len(trunk) - 2))
        right, down = trunk[joint] - trunk[joint - 3]
        aside = np.arctan2(down, right) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        branch = _wander(size, trunk[joint], aside, int(rng.integers(5, 14)), rng)
        thin = np.linspace(0.7 * width, 0.4, len(branch))
        gap = np.maximum(gap, _stroke(size, branch, thin, np.linspace(0.9, 0.4, len(branch))))
    strength = rng.uniform(0.55, 1.0)
    return _Defect(4.0 * strength * gap, 70.0 * strength * gap)


def _wander(size: int, start: np.ndarray, way: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    """A walk of short steps that keeps its way on the whole, (steps + 1, 2)."""
    ways = way + rng.normal(0, 0.55, steps) + np.cumsum(rng.normal(0, 0.12, steps))
    lengths = rng.uniform(0.01, 0.025, steps) * size
    strides = np.stack([np.cos(ways), np.sin(ways)], axis=1) * lengths[:, None]
    return np.vstack([start, start + np.cumsum(strides, axis=0)])


def _pits(size: int, rng: np.random.Generator) -> _Defect:
    """A loose cluster of small dark hollows of different sizes."""
    middle, spread = _place(size, rng), rng.uniform(0.05, 0.13, 2) * size
    canvas = np.zeros((size * _FINE, size * _FINE), np.float32)
    for _ in range(rng.integers(5, 18)):
        place = (middle + rng.normal(0, 1, 2) * spread) * _FINE
        diameters = 2 * rng.uniform(1.1, 3.0) * rng.uniform(0.7, 1.3, 2) * _FINE
        ellipse = (place.tolist(), diameters.tolist(), rng.uniform(0, 180))
        cv2.ellipse(canvas, ellipse, rng.uniform(0.5, 1.0), cv2.FILLED)
    hollows = cv2.GaussianBlur(_coarse(canvas), (0, 0), 0.7)
    strength = rng.uniform(0.6, 1.0)
    return _Defect(7.0 * strength * hollows, 40.0 * strength * hollows)


def _stain(size: int, rng: np.random.Generator) -> _Defect:
    """A flat blot with an uneven outline and a tide mark, mostly darker than the metal."""
    down, right = np.mgrid[:size, :size]
    middle, radii = _place(size, rng), rng.uniform(0.12, 0.26, 2) * size
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
    canvas = np.zeros((size * _FINE, size * _FINE), np.float32)
    corners = np.rint(points * _FINE).astype(int).tolist()
    for start, end, width, strength in zip(corners, corners[1:], widths, strengths, strict=False):
        cv2.line(canvas, start, end, float(strength), max(1, round(width * _FINE)))
    return _coarse(canvas)


def _coarse(canvas: np.ndarray) -> np.ndarray:
    side = len(canvas) // _FINE
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)


_DRAWN: dict[str, Callable[[int, np.random.Generator], _Defect]] = {
    "ok": _sound,
    "scratch": _scratch,
    "pits": _pits,
    "stain": _stain,
    "crack": _crack,
}
