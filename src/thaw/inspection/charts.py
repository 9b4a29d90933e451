"""Charts of an inspection as SVG; colours come from the style sheet of the page, light or dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import log

from thaw.formats import count, interval
from thaw.inspection.learning_curve import CurvePoint, LearningCurve
from thaw.inspection.similarity import DIFFERENT, SIMILAR, StageShift

CLASS_COLOURS = (
    "#2f6fde",
    "#d9622b",
    "#2b9a66",
    "#a04bc4",
    "#c79a12",
    "#d0407c",
    "#1a9aa8",
    "#7a6a58",
    "#6a74d8",
    "#8aa02c",
)
"""One colour a class, distinguishable with colour blindness too; they repeat after ten classes."""

NO_LABEL_COLOUR = "#9aa0a6"
"""The colour of images without a label."""

_LABEL_WIDTH = 60


@dataclass(frozen=True)
class MapDot:
    """An image on the map: position 0..1, colour, title, and a thumbnail as data URL (empty for none)."""

    x: float
    y: float
    colour: str
    title: str
    thumbnail: str


def class_colour(index: int) -> str:
    """The colour of a class by its index; a negative one stands for no label."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)] if index >= 0 else NO_LABEL_COLOUR


def learning_curve(curve: LearningCurve) -> str:
    """Accuracy against the number of images on a logarithmic scale, intervals shaded and the forecast dashed."""
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
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f}%</text>')
    upper = " ".join(f"{x(point):.1f},{y(point.high):.1f}" for point in points)
    lower = " ".join(f"{x(point):.1f},{y(point.low):.1f}" for point in reversed(points))
    parts.append(f'<polygon class="band" points="{upper} {lower}"/>')
    parts.append(_polyline(curve.measured, x, y, "curve"))
    parts.append(_polyline([*curve.measured[-1:], *curve.forecast], x, y, "curve forecast"))
    last_label = float("-inf")
    for point in points:
        title = f"{count(point.images, 'image')}: {interval(point.accuracy, point.low, point.high)}"
        parts.append(
            f'<circle cx="{x(point):.1f}" cy="{y(point.accuracy):.1f}" r="4"><title>{escape(title)}</title></circle>'
        )
        if x(point) - last_label >= _LABEL_WIDTH:
            last_label = x(point)
            position = f'x="{last_label:.1f}" y="{height - bottom + 20}"'
            parts.append(f'<text {position} text-anchor="middle">{_short(point.images)}</text>')
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 4}" text-anchor="middle">training images</text></svg>')
    return "".join(parts)


def stage_bars(stages: Sequence[StageShift]) -> str:
    """Feature shift of each stage as a bar, from the pixels to the head, with the thresholds of the verdicts."""
    width, row, left = 640, 26, 150
    height = row * len(stages) + 48
    largest = max(1.0, *(stage.shift for stage in stages))
    scale = (width - left - 60) / largest
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="feature shift of each stage">']
    for threshold in (SIMILAR, DIFFERENT):
        x = left + threshold * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 46}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 28}" text-anchor="middle">{threshold:g}</text>')
    for number, stage in enumerate(stages):
        top = number * row
        parts.append(f'<text x="{left - 10}" y="{top + 17}" text-anchor="end">{escape(stage.stage)}</text>')
        length = stage.shift * scale
        parts.append(f'<rect class="bar" x="{left}" y="{top + 4}" width="{length:.1f}" height="{row - 8}" rx="3"/>')
        parts.append(f'<text x="{left + length + 8:.1f}" y="{top + 17}">{stage.shift:.2f}</text>')
    legend = "feature shift in standard deviations"
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 6}" text-anchor="middle">{legend}</text></svg>')
    return "".join(parts)


def scatter(dots: Sequence[MapDot]) -> str:
    """The map, one dot an image; dots with a thumbnail can be focused, and the page shows it.

    Only the first of them is a tab stop; the script of the page moves the focus from there.
    """
    side, margin, tab_index = 640, 14, 0
    parts = [f'<svg class="map" viewBox="0 0 {side} {side}" role="group" aria-label="map of the images">']
    for dot in dots:
        x, y = (margin + value * (side - 2 * margin) for value in (dot.x, dot.y))
        title = escape(dot.title, quote=True)
        attributes = f'cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{dot.colour}"'
        if dot.thumbnail:
            attributes += f' tabindex="{tab_index}" role="img" data-thumbnail="{dot.thumbnail}" data-title="{title}"'
            tab_index = -1
        parts.append(f"<circle {attributes}><title>{title}</title></circle>")
    return "".join([*parts, "</svg>"])


def _polyline(
    points: Sequence[CurvePoint], x: Callable[[CurvePoint], float], y: Callable[[float], float], css_class: str
) -> str:
    path = " ".join(f"{x(point):.1f},{y(point.accuracy):.1f}" for point in points)
    return f'<polyline class="{css_class}" points="{path}"/>'


def _short(images: int) -> str:
    return f"{images / 1000:.1f}k" if images >= 10_000 else f"{images:,}"
