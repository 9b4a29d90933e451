"""Charts as SVG text that takes its colours from the page around it, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import log

from thaw.inspection.linear_probe import CurvePoint, LearningCurve
from thaw.inspection.similarity import DIFFERENT, SIMILAR, StageShift

HUES = ("#2f6fde", "#d9622b", "#2b9a66", "#a04bc4", "#c79a12", "#d0407c", "#1a9aa8", "#7a6a58", "#6a74d8", "#8aa02c")
"""One for each class, told apart by people who see few colours too; after ten they come again."""

_LABEL_WIDTH = 60


@dataclass(frozen=True)
class Spot:
    """A point of a map: its place in 0..1, its class, what it is called, and a picture (empty for none)."""

    x: float
    y: float
    class_index: int
    title: str
    picture: str


def learning_curve(curve: LearningCurve) -> str:
    """Accuracy against images, on a logarithmic scale; the forecast dashed, intervals shaded."""
    width, height, left, bottom, top, right = 640, 300, 56, 44, 16, 20
    points = [*curve.measured, *curve.forecast]
    low = max(0.0, min(point.low for point in points) - 0.02)
    high = min(1.0, max(point.high for point in points) + 0.02)
    first, last = points[0].images, points[-1].images

    def x(point: CurvePoint) -> float:
        span = log(last) - log(first) or 1.0
        return left + (log(point.images) - log(first)) / span * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low) / (high - low or 1.0) * (height - bottom - top)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="accuracy against number of images">']
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    upper = " ".join(f"{x(point):.1f},{y(point.high):.1f}" for point in points)
    lower = " ".join(f"{x(point):.1f},{y(point.low):.1f}" for point in reversed(points))
    parts.append(f'<polygon class="band" points="{upper} {lower}"/>')
    parts.append(_line(curve.measured, x, y, "curve"))
    parts.append(_line([*curve.measured[-1:], *curve.forecast], x, y, "curve forecast"))
    labelled = float("-inf")
    for point in points:
        label = f"{point.images:,} images: {point.accuracy:.1%} ({point.low:.1%} to {point.high:.1%})"
        parts.append(f'<circle cx="{x(point):.1f}" cy="{y(point.accuracy):.1f}" r="4"><title>{label}</title></circle>')
        if x(point) - labelled >= _LABEL_WIDTH:
            labelled = x(point)
            place = f'x="{labelled:.1f}" y="{height - bottom + 20}"'
            parts.append(f'<text {place} text-anchor="middle">{_short(point.images)}</text>')
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 4}" text-anchor="middle">training images</text></svg>')
    return "".join(parts)


def stage_bars(stages: Sequence[StageShift]) -> str:
    """One bar a stage, from the pixels to the head, with the borders of the verdicts."""
    width, row, left = 640, 26, 150
    height = row * len(stages) + 48
    most = max(1.0, *(stage.shift for stage in stages))
    scale = (width - left - 60) / most
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="shift of each stage">']
    for border in (SIMILAR, DIFFERENT):
        place = left + border * scale
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{height - 46}"/>')
        parts.append(f'<text x="{place:.1f}" y="{height - 28}" text-anchor="middle">{border:g}</text>')
    for number, stage in enumerate(stages):
        top = number * row
        parts.append(f'<text x="{left - 10}" y="{top + 17}" text-anchor="end">{escape(stage.stage)}</text>')
        length = stage.shift * scale
        parts.append(f'<rect class="bar" x="{left}" y="{top + 4}" width="{length:.1f}" height="{row - 8}" rx="3"/>')
        parts.append(f'<text x="{left + length + 8:.1f}" y="{top + 17}">{stage.shift:.2f}</text>')
    legend = "deviations from what the network remembers"
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 6}" text-anchor="middle">{legend}</text></svg>')
    return "".join(parts)


def scatter(spots: Sequence[Spot]) -> str:
    """The map: one dot an image; those with a picture show it on hover, on focus and on a tap.

    The Tab key stops at the first of them alone; from there on the page moves the focus.
    """
    side, edge, stop = 640, 14, 0
    parts = [f'<svg class="map" viewBox="0 0 {side} {side}" role="group" aria-label="map of the images">']
    for spot in spots:
        x, y = (edge + value * (side - 2 * edge) for value in (spot.x, spot.y))
        colour, title = HUES[spot.class_index % len(HUES)], escape(spot.title, quote=True)
        more = ""
        if spot.picture:
            more = f' tabindex="{stop}" role="img" data-picture="{spot.picture}" data-title="{title}"'
            stop = -1
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"{more}><title>{title}</title></circle>')
    return "".join([*parts, "</svg>"])


def _line(
    points: Sequence[CurvePoint], x: Callable[[CurvePoint], float], y: Callable[[float], float], kind: str
) -> str:
    path = " ".join(f"{x(point):.1f},{y(point.accuracy):.1f}" for point in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _short(images: int) -> str:
    return f"{images / 1000:.1f}k" if images >= 10_000 else f"{images:,}"
