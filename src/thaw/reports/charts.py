"""Charts of a run as SVG; colours come from the style sheet of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from thaw.evaluation.calibration import Bin
from thaw.formats import count, percent
from thaw.metrics import Estimate
from thaw.training.history import EpochRecord

_MAX_POINTS = 300
_MAX_DOTS = 30

EpochValue = Callable[[EpochRecord], float]
"""Reads the value to plot from the record of an epoch."""


@dataclass(frozen=True)
class Frame:
    """Maps values to the coordinates of a plot.

    Attributes:
        width, height: Size of the SVG.
        low, high: Values at the ends of the vertical axis.
        first, last: Values at the ends of the horizontal axis.
        left, right, top, bottom: Margins around the plot.
    """

    width: int
    height: int
    low: float
    high: float
    first: float = 0.0
    last: float = 1.0
    left: int = 58
    right: int = 24
    top: int = 26
    bottom: int = 40

    def x(self, value: float) -> float:
        """Coordinate of a value on the horizontal axis."""
        return self.left + (value - self.first) / (self.last - self.first) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Coordinate of a value on the vertical axis, clipped to the plot."""
        fraction = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.height - self.bottom - fraction * (self.height - self.bottom - self.top)


def training_curve(
    records: Sequence[EpochRecord],
    kept: int | None,
    label: str,
    curves: Mapping[str, EpochValue],
    to_text: Callable[[float], str],
) -> str:
    """Values by epoch, with the phases in the background.

    Args:
        records: All epochs.
        kept: Index of the epoch that is kept, which is marked on the last curve.
        label: Description of the chart for screen readers.
        curves: One curve for each name.
        to_text: Formats values.

    Returns:
        The chart; empty where no value is finite.
    """
    values = [value for value_of in curves.values() for record in records if math.isfinite(value := value_of(record))]
    if not values:
        return ""
    low, high = min(values), max(values)
    padding = (high - low) * 0.08 or 0.05
    frame = Frame(520, 270, max(low - padding, 0.0), high + padding, 0.5, len(records) + 0.5, top=44)
    parts = [_open(frame, label), *_phase_bands(frame, records), *_grid(frame, to_text)]
    for number, (name, value_of) in enumerate(curves.items()):
        css_class = "curve" if number == len(curves) - 1 else "curve second"
        parts += _by_phase(frame, records, value_of, css_class, to_text)
        if len(curves) > 1:
            x = frame.width - frame.right - 96 * (len(curves) - number) + 12
            parts.append(f'<line class="{css_class}" x1="{x}" x2="{x + 20}" y1="12" y2="12"/>')
            parts.append(f'<text x="{x + 26}" y="16">{escape(name)}</text>')
    last_curve = list(curves.values())[-1]
    if kept is not None and math.isfinite(value := last_curve(records[kept])):
        position = f'cx="{frame.x(kept + 1):.1f}" cy="{frame.y(value):.1f}"'
        title = f"kept: phase {records[kept].phase}, epoch {records[kept].epoch}: {to_text(value)}"
        parts.append(f'<circle class="kept" {position} r="7"><title>{escape(title)}</title></circle>')
    return "".join([*parts, *_epoch_axis(frame, len(records)), "</svg>"])


def reliability(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Reliability diagram before and after calibration; larger dots stand for more predictions."""
    frame = Frame(420, 380, 0.0, 1.0)
    parts = [_open(frame, "accuracy against confidence"), *_grid(frame, _whole_percent)]
    parts.append(
        f'<line class="ideal" x1="{frame.x(0):.1f}" y1="{frame.y(0):.1f}" x2="{frame.x(1):.1f}" y2="{frame.y(1):.1f}"/>'
    )
    for bins, css_class, name in ((before, "second", "before"), (after, "", "after")):
        largest = max((item.count for item in bins), default=1)
        points = " ".join(f"{frame.x(item.confidence):.1f},{frame.y(item.accuracy):.1f}" for item in bins)
        parts.append(f'<polyline class="curve thin {css_class}" points="{points}"/>')
        for item in bins:
            title = escape(
                f"{name}: {count(item.count, 'prediction')}, confidence {percent(item.confidence)}, "
                f"accuracy {percent(item.accuracy)}"
            )
            radius = 3 + 6 * math.sqrt(item.count / largest)
            position = f'cx="{frame.x(item.confidence):.1f}" cy="{frame.y(item.accuracy):.1f}"'
            parts.append(
                f'<circle class="{css_class or "dot"}" {position} r="{radius:.1f}"><title>{title}</title></circle>'
            )
    return "".join([*parts, *_quarters(frame, "confidence", _whole_percent), "</svg>"])


def threshold_frame() -> tuple[str, Frame]:
    """Axes of the threshold plot; not closed, for the script of the page adds the curves of the selected class."""
    frame = Frame(520, 270, 0.0, 1.0)
    opened = _open(frame, "recall, false-positive rate and precision by threshold")
    return "".join([opened, *_grid(frame, _whole_percent), *_quarters(frame, "threshold", "{:g}".format)]), frame


def interval_bar(estimate: Estimate) -> str:
    """An estimate as a dot on an axis from 0 to 1, its interval as a line."""
    low, value, high = (2 + 92 * min(max(part, 0.0), 1.0) for part in (estimate.low, estimate.value, estimate.high))
    return (
        '<svg class="interval" viewBox="0 0 96 10" aria-hidden="true"><line class="grid" x1="2" x2="94" y1="5" y2="5"/>'
        f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="5" y2="5"/>'
        f'<circle cx="{value:.1f}" cy="5" r="3"/></svg>'
    )


def _whole_percent(value: float) -> str:
    return percent(value, 0)


def _open(frame: Frame, label: str) -> str:
    return f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(label, quote=True)}">'


def _grid(frame: Frame, to_text: Callable[[float], str], steps: int = 4) -> list[str]:
    parts = []
    for step in range(steps + 1):
        value = frame.low + (frame.high - frame.low) * step / steps
        y = frame.y(value)
        parts.append(
            f'<line class="grid" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{to_text(value)}</text>')
    return parts


def _quarters(frame: Frame, name: str, to_text: Callable[[float], str]) -> list[str]:
    """Labels of a horizontal axis from 0 to 1, and its name."""
    marks = [(value, frame.height - frame.bottom + 18, to_text(value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return [
        f'<text x="{frame.x(value):.1f}" y="{y}" text-anchor="middle">{text}</text>'
        for value, y, text in (*marks, (0.5, frame.height - 4, name))
    ]


def _phase_bands(frame: Frame, records: Sequence[EpochRecord]) -> list[str]:
    """A band for each phase, every other one shaded, with name and cut where they fit."""
    parts = []
    for number, (start, end) in enumerate(_phase_ranges(records)):
        left, right = frame.x(start + 0.5), frame.x(end + 0.5)
        top, height = frame.top, frame.height - frame.top - frame.bottom
        record = records[start]
        name = record.phase if record.cut == record.phase else f"{record.phase} ({record.cut})"
        shade = "" if number % 2 else " shaded"
        parts.append(
            f'<rect class="phase{shade}" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{height}">'
            f"<title>phase {escape(name)}, {count(end - start, 'epoch')}</title></rect>"
        )
        if right - left > 9 * len(name):
            parts.append(f'<text x="{left + 6:.1f}" y="{top - 8}">{escape(name)}</text>')
    return parts


def _phase_ranges(records: Sequence[EpochRecord]) -> list[tuple[int, int]]:
    """(first, past the last) index of each phase."""
    starts = [index for index, item in enumerate(records) if not index or item.phase != records[index - 1].phase]
    return list(zip(starts, [*starts[1:], len(records)], strict=True))


def _by_phase(
    frame: Frame, records: Sequence[EpochRecord], value_of: EpochValue, css_class: str, to_text: Callable[[float], str]
) -> list[str]:
    """One line a phase, not connected between phases; with dots where there are few epochs."""
    parts = []
    for start, end in _phase_ranges(records):
        step = max(1, len(records) // _MAX_POINTS)
        shown = [index for index in range(start, end, step) if math.isfinite(value_of(records[index]))]
        points = " ".join(f"{frame.x(index + 1):.1f},{frame.y(value_of(records[index])):.1f}" for index in shown)
        parts.append(f'<polyline class="{css_class}" points="{points}"/>')
        if len(records) <= _MAX_DOTS:
            dot = "dot" if css_class == "curve" else "second"
            for index in shown:
                value, record = value_of(records[index]), records[index]
                parts.append(
                    f'<circle class="{dot}" cx="{frame.x(index + 1):.1f}" cy="{frame.y(value):.1f}" r="3">'
                    f"<title>{escape(record.phase)}, epoch {record.epoch}: {to_text(value)}</title></circle>"
                )
    return parts


def _epoch_axis(frame: Frame, epochs: int) -> list[str]:
    """Labels of the epochs, at most ten or so."""
    step = max(1, math.ceil(epochs / 10))
    y = frame.height - frame.bottom + 18
    marks = [
        f'<text x="{frame.x(epoch):.1f}" y="{y}" text-anchor="middle">{epoch}</text>'
        for epoch in range(1, epochs + 1, step)
    ]
    middle = (frame.left + frame.width - frame.right) / 2
    return [*marks, f'<text x="{middle:.1f}" y="{frame.height - 4}" text-anchor="middle">epoch</text>']
