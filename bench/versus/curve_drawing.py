"""Curves of test accuracy against time as one SVG. No packages needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.versus.curve import Point

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 200, 20, 44
COLOURS = ("#d1495b", "#00798c", "#edae49", "#30638e", "#6a994e", "#8d6a9f", "#555555")
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
MOST_ACCURACY_TICKS = 6


@dataclass(frozen=True)
class Line:
    """The curves of one tool, one per round; the last point of each is the finished run."""

    title: str
    curves: Sequence[Sequence[Point]]


@dataclass(frozen=True)
class Frame:
    """From seconds (logarithmic) and accuracy to the coordinates of the drawing."""

    first: float
    last: float
    low: float
    high: float

    def x(self, seconds: float) -> float:
        """Coordinate of a time."""
        fraction = math.log(seconds / self.first) / math.log(self.last / self.first)
        return LEFT + fraction * (WIDTH - LEFT - RIGHT)

    def y(self, accuracy: float) -> float:
        """Coordinate of an accuracy."""
        return HEIGHT - BOTTOM - (accuracy - self.low) / (self.high - self.low) * (HEIGHT - BOTTOM - TOP)


def draw_curves(lines: Sequence[Line]) -> str:
    """An SVG with a step wherever an answer was replaced, a dot at the end of each run, and a legend."""
    points = [point for line in lines for curve in line.curves for point in curve]
    times, accuracies = zip(*points, strict=True)
    step = _step(max(accuracies) - min(accuracies))
    low = math.floor(min(accuracies) / step) * step
    high = max(math.ceil(max(accuracies) / step) * step, low + step)
    frame = Frame(min(times) * 0.9, max(times) * 1.1, low, high)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_axes(frame, step),
    ]
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        for curve in line.curves:
            end = curve[-1]
            parts.append(f'<path d="{_steps(frame, curve)}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
            parts.append(f'<circle cx="{frame.x(end[0]):.1f}" cy="{frame.y(end[1]):.1f}" r="4" fill="{colour}"/>')
        x, y = WIDTH - RIGHT + 14, TOP + 10 + 20 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10}" y="{y}">{escape(line.title.replace("`", ""))}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _step(span: float) -> float:
    """The distance between ticks of accuracy."""
    return next((step for step in (0.01, 0.02, 0.05, 0.1) if span / step <= MOST_ACCURACY_TICKS), 0.2)


def _axes(frame: Frame, step: float) -> list[str]:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for index in range(round((frame.high - frame.low) / step) + 1):
        accuracy = frame.low + index * step
        y = frame.y(accuracy)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{accuracy:.0%}</text>')
    for seconds in TICKS:
        if frame.first <= seconds <= frame.last:
            x = frame.x(seconds)
            parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#eeeeee"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{seconds:,}</text>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">seconds since the start</text>')
    return parts


def _steps(frame: Frame, curve: Sequence[Point]) -> str:
    (seconds, accuracy), *others = curve
    moves = [f"M{frame.x(seconds):.1f} {frame.y(accuracy):.1f}"]
    moves += [f"H{frame.x(seconds):.1f}V{frame.y(accuracy):.1f}" for seconds, accuracy in others]
    return "".join(moves)
