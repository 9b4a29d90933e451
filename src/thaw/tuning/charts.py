"""Charts of a search as SVG; colours come from the style sheet of the page, light or dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log, log10

from thaw.run_folder.trial_record import LevelName

COLOURS: Mapping[LevelName, str] = {"probe": "#8aa02c", "head": "#1a9aa8", "short": "#c79a12", "full": "#2f6fde"}
"""One colour a level, distinguishable with colour blindness too."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 300, 58, 44, 16, 24


@dataclass(frozen=True)
class Dot:
    """A trial in a plane: where it lies, its level, a title, and whether it is on the line of the best."""

    x: float
    y: float
    level: LevelName
    title: str
    is_best: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis of parallel coordinates: its title, and the labels of its ends or of all of its values, 0..1."""

    title: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A trial in parallel coordinates: its place 0..1 on each axis, its rank from 0 to 1 for the best, and a title."""

    places: Sequence[float]
    rank: float
    title: str


def plane(dots: Sequence[Dot], x_title: str, y_text: Callable[[float], str], x_text: Callable[[float], str]) -> str:
    """Trials by two numbers; those on the line of the best are connected, level by level."""
    if not dots:
        return ""
    low_x, high_x = min(dot.x for dot in dots), max(dot.x for dot in dots)
    low, high = min(dot.y for dot in dots), max(dot.y for dot in dots)
    padding = (high - low) * 0.08 or 0.01
    low, high = low - padding, high + padding

    def at(dot: Dot) -> tuple[float, float]:
        across = (dot.x - low_x) / (high_x - low_x or 1.0)
        up = (dot.y - low) / (high - low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="trials by {escape(x_title)}">']
    for value in _round_values(low, high):
        y = _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(y_text(value))}</text>')
    for level, colour in COLOURS.items():
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, [d for d in dots if d.level == level and d.is_best]))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" opacity=".7"/>')
    for dot in dots:
        x, y = at(dot)
        size, colour = (5 if dot.is_best else 3.5), COLOURS[dot.level]
        mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}" opacity="{1 if dot.is_best else 0.55}">'
        parts.append(f"{mark}<title>{escape(dot.title)}</title></circle>")
    for value, x, anchor in ((low_x, _LEFT, "start"), (high_x, _WIDTH - _RIGHT, "end")):
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="{anchor}">{x_text(value)}</text>')
    middle = (_LEFT + _WIDTH) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text></svg>')
    return "".join(parts)


def _round_values(low: float, high: float) -> list[float]:
    """Up to nine values between two others: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10((high - low) / 8))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 8 >= high - low)
    return [number * step for number in range(ceil(low / step), floor(high / step) + 1)]


def bars(values: Mapping[str, float], label: str) -> str:
    """Fractions as bars, the largest first."""
    row, left = 26, 190
    height = row * len(values) + 4
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for number, (name, value) in enumerate(sorted(values.items(), key=lambda item: -item[1])):
        top, length = number * row, value * (_WIDTH - left - 60)
        parts.append(f'<text x="{left - 10}" y="{top + 17}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{top + 4}" width="{length:.1f}" height="{row - 8}" rx="3"/>')
        parts.append(f'<text x="{left + length + 8:.1f}" y="{top + 17}">{100 * value:.0f}%</text>')
    return "".join([*parts, "</svg>"])


def parallel(axes: Sequence[Axis], lines: Sequence[Line]) -> str:
    """Each trial as a line across the axes; the better it is, the stronger. Pointing at one shows it alone."""
    width, height, top, bottom, side = 1000, 330, 46, 30, 70
    step = (width - 2 * side) / max(1, len(axes) - 1)

    def y(place: float) -> float:
        return height - bottom - place * (height - bottom - top)

    parts = [f'<svg class="parallel" viewBox="0 0 {width} {height}" role="img" aria-label="settings of all trials">']
    for line in sorted(lines, key=lambda line: line.rank):
        points = " ".join(f"{side + index * step:.1f},{y(place):.1f}" for index, place in enumerate(line.places))
        opacity = 0.08 + 0.92 * line.rank**3
        parts.append(
            f'<polyline points="{points}" stroke-width="{1 + 2 * line.rank**3:.1f}" opacity="{opacity:.2f}">'
            f"<title>{escape(line.title)}</title></polyline>"
        )
    for index, axis in enumerate(axes):
        x = side + index * step
        title = axis.title.rpartition(".")[2].replace("_", " ")
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{20 if index % 2 else 36}" text-anchor="middle">{escape(title)}'
            f"<title>{escape(axis.title)}</title></text>"
        )
        for place, text in axis.ticks:
            parts.append(f'<text class="tick" x="{x + 5:.1f}" y="{y(place) + 4:.1f}">{escape(text)}</text>')
    return "".join([*parts, "</svg>"])


def place_of(value: float, low: float, high: float, is_log: bool) -> float:
    """Where a number lies between two others, 0..1."""
    if is_log:
        value, low, high = log(value), log(low), log(high)
    return min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))
