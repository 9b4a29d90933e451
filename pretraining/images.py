"""Photographs from a folder, and synthetic images: fractals, dead leaves, textures, defective surfaces.

A student that only sees photographs of objects does not learn the teacher's features of industrial surfaces; synthetic
images cover them without any real image of such surfaces.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

SIDE = 256
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_photographs(folder: Path) -> list[np.ndarray]:
    """All photographs below `folder`, sorted by name, (H, W, 3) uint8 RGB, reduced to a short side of 256 pixels."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise SystemExit(f"{folder}: contains no photographs ({', '.join(_SUFFIXES)})")
    return [_read(file) for file in files]


def synthetic_images(count: int, seed: int) -> list[np.ndarray]:
    """Synthetic images, (256, 256, 3) uint8 RGB, alternating between the kinds."""
    kinds = list(_KINDS)
    return [kinds[number % len(kinds)](np.random.default_rng((seed, number))) for number in range(count)]


def _read(file: Path) -> np.ndarray:
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if pixels is None:
        raise SystemExit(f"{file}: cannot be read as an image")
    ratio = SIDE / min(pixels.shape[:2])
    if ratio < 1:
        pixels = cv2.resize(pixels, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(pixels[..., ::-1])


def _fractal(rng: np.random.Generator) -> np.ndarray:
    """The attractor of a few random contractions, coloured by how often a random walk visits each pixel."""
    maps = int(rng.integers(2, 7))
    turns, _ = np.linalg.qr(rng.normal(size=(maps, 2, 2)))
    linear = turns * rng.uniform(0.2, 0.95, (maps, 1, 2))
    shifts = rng.uniform(-1, 1, (maps, 2))
    points, visits = rng.uniform(-1, 1, (2000, 2)), []
    probabilities = np.abs(np.linalg.det(linear)) + 0.05
    for step in range(60):
        chosen = rng.choice(maps, len(points), p=probabilities / probabilities.sum())
        points = np.einsum("nij,nj->ni", linear[chosen], points) + shifts[chosen]
        if step > 10:
            visits.append(points)
    cloud = np.concatenate(visits)
    low, high = np.percentile(cloud, [1, 99], axis=0)
    places = ((cloud - low) / np.maximum(high - low, 1e-6) * (SIDE - 1)).astype(int)
    inside = ((places >= 0) & (places < SIDE)).all(axis=1)
    visited = np.zeros((SIDE, SIDE), np.float32)
    np.add.at(visited, (places[inside, 1], places[inside, 0]), 1.0)
    density = cv2.GaussianBlur(np.log1p(visited), (0, 0), rng.uniform(0.4, 1.2))
    return _coloured(density / max(density.max(), 1e-6), rng)


def _dead_leaves(rng: np.random.Generator) -> np.ndarray:
    """Discs, boxes and polygons with natural size statistics, later ones in front, some textured."""
    image = np.full((SIDE, SIDE, 3), rng.uniform(0, 255, 3), np.float32)
    palette = rng.uniform(0, 255, (int(rng.integers(3, 10)), 3))
    for _ in range(int(rng.integers(40, 400))):
        radius = min(4.0 / rng.random() ** 0.7, 90.0)
        middle = rng.uniform(0, SIDE, 2)
        corners = int(rng.choice([3, 4, 5, 24]))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 2 * np.pi, corners)
        reach = radius * np.array([1.0, rng.uniform(0.3, 1.0)])
        outline = middle + np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
        colour = palette[rng.integers(len(palette))] + rng.normal(0, 12, 3)
        inside = mask.astype(bool)
        grain = rng.normal(0, rng.choice([0, 0, 8, 25]), (int(inside.sum()), 1))
        image[inside] = colour + grain
    return _pixels(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.0)))


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Noise with a random spectrum and direction, optionally with waves, mapped to colours."""
    value = _spectrum(rng.uniform(0.5, 2.5), rng)
    if rng.random() < 0.5:
        value = value * 0.5 + _waves(rng)
    if rng.random() < 0.3:
        value = np.abs(value)
    if rng.random() < 0.3:
        value = np.tanh(rng.uniform(2, 8) * value)
    return _coloured(_unit(value), rng)


def _defective_surface(rng: np.random.Generator) -> np.ndarray:
    """A nearly uniform grey surface with grain, sometimes a grid of lines, and a few defects."""
    size = (SIDE, SIDE)
    grain = cv2.GaussianBlur(
        rng.standard_normal(size, dtype=np.float32), (0, 0), rng.uniform(0.5, 20), sigmaY=rng.uniform(0.5, 3)
    )
    surface = rng.uniform(60, 190) + rng.uniform(2, 14) * grain / grain.std() + 12 * _spectrum(2.0, rng)
    if rng.random() < 0.5:
        spacing, dark = int(rng.integers(6, 90)), rng.uniform(-60, 60)
        surface[:: spacing + 1] += dark
        surface[:, :: int(rng.integers(20, 140))] += dark * rng.uniform(0, 1.5)
    for _ in range(int(rng.integers(0, 5))):
        depth = np.zeros(size, np.float32)
        points = np.cumsum(rng.normal(rng.normal(0, 6, 2), rng.uniform(0.5, 6), (int(rng.integers(2, 25)), 2)), axis=0)
        points += rng.uniform(20, SIDE - 20, 2)
        if rng.random() < 0.6:
            cv2.polylines(depth, [np.rint(points).astype(np.int32)], False, 1.0, int(rng.integers(1, 4)))
        else:
            for x, y in points[:8]:
                axes = (int(rng.integers(1, 22)), int(rng.integers(1, 22)))
                cv2.ellipse(depth, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        surface = surface + rng.choice([-1, 1]) * rng.uniform(15, 90) * cv2.GaussianBlur(
            depth, (0, 0), rng.uniform(0.4, 3)
        )
    surface = surface + rng.normal(0, rng.uniform(0.5, 6), size)
    if rng.random() < 0.5:
        surface = surface.T
    return _pixels(np.repeat(surface[..., None], 3, axis=2) * rng.uniform(0.92, 1.08, 3 if rng.random() < 0.3 else 1))


def _spectrum(slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with amplitude proportional to frequency^-slope, (256, 256), mean 0, standard deviation 1."""
    down, right = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    stretch = rng.uniform(0.25, 4.0) if rng.random() < 0.5 else 1.0
    frequency = np.hypot(down * stretch, right / stretch)
    frequency[0, 0] = 1.0
    noise = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * frequency**-slope
    noise[0, 0] = 0.0
    value = np.fft.irfft2(noise, (SIDE, SIDE))
    return (value / value.std()).astype(np.float32)


def _waves(rng: np.random.Generator) -> np.ndarray:
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE
    total = np.zeros((SIDE, SIDE))
    for _ in range(int(rng.integers(1, 4))):
        frequency, direction = rng.uniform(3, 50), rng.uniform(0, np.pi)
        total += np.sin(2 * np.pi * (frequency * (np.cos(direction) * right + np.sin(direction) * down) + rng.random()))
    return total.astype(np.float32)


def _coloured(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values 0..1 mapped to a random gradient of a few colours."""
    stops = int(rng.integers(2, 6))
    colours = rng.uniform(0, 255, (stops, 3))
    at = np.sort(np.concatenate([[0.0, 1.0], rng.random(stops - 2)]))
    return _pixels(np.stack([np.interp(value, at, colours[:, channel]) for channel in range(3)], axis=2))


def _unit(value: np.ndarray) -> np.ndarray:
    low, high = np.percentile(value, [1, 99])
    return ((value - low) / max(high - low, 1e-6)).clip(0, 1)


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


_KINDS: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (_fractal, _dead_leaves, _texture, _defective_surface)
