"""Charts of a run as SVG text that takes its colours from the page around it, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from thaw.evaluation.calibration import Bin
from thaw.metrics import Estimate
from thaw.training.history import EpochRecord

_MOST_POINTS = 300
_FEW_POINTS = 30


@dataclass(frozen=True)
class Frame:
    """The room of a plot inside its picture, and the values at its borders."""

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
        """Where a value of the horizontal axis lies."""
        return self.left + (value - self.first) / (self.last - self.first) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Where a value of the vertical axis lies; what is out of range lies at the border."""
        fraction = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.height - self.bottom - fraction * (self.height - self.bottom - self.top)


def training_curve(
    records: Sequence[EpochRecord],
    best: int | None,
    label: str,
    curves: Sequence[tuple[str, Callable[[EpochRecord], float]]],
) -> str:
    """Values by epoch, each phase shaded and named with its cut, the best epoch marked on the last curve."""
    values = [value for _, of in curves for record in records if math.isfinite(value := of(record))]
    if not values:
        return ""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or 0.05
    frame = Frame(520, 270, max(low - room, 0.0), high + room, 0.5, len(records) + 0.5, top=44)
    parts = [_open(frame, label), *_phases(frame, records), *_grid(frame, lambda value: f"{value:.3g}")]
    for number, (name, of) in enumerate(curves):
        is_last = number == len(curves) - 1
        kind = "curve" if is_last else "curve second"
        parts += _by_phase(frame, records, of, kind)
        if len(curves) > 1:
            x = frame.width - frame.right - 96 * (len(curves) - number) + 12
            parts.append(f'<line class="{kind}" x1="{x}" x2="{x + 20}" y1="12" y2="12"/>')
            parts.append(f'<text x="{x + 26}" y="16">{escape(name)}</text>')
    if best is not None and math.isfinite(value := curves[-1][1](records[best])):
        place = f'cx="{frame.x(best + 1):.1f}" cy="{frame.y(value):.1f}"'
        title = f"best: phase {records[best].phase}, epoch {records[best].epoch}: {value:.4f}"
        parts.append(f'<circle class="best" {place} r="7"><title>{escape(title)}</title></circle>')
    return "".join([*parts, *_epochs(frame, len(records)), "</svg>"])


def reliability(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """The share of right answers against confidence, before and after calibration; larger dots hold more answers."""
    frame = Frame(420, 380, 0.0, 1.0)
    parts = [_open(frame, "share of right answers against confidence"), *_grid(frame, _percent)]
    parts.append(
        f'<line class="ideal" x1="{frame.x(0):.1f}" y1="{frame.y(0):.1f}" x2="{frame.x(1):.1f}" y2="{frame.y(1):.1f}"/>'
    )
    for bins, kind, name in ((before, "second", "before"), (after, "", "after")):
        most = max((one.count for one in bins), default=1)
        points = " ".join(f"{frame.x(one.confidence):.1f},{frame.y(one.accuracy):.1f}" for one in bins)
        parts.append(f'<polyline class="curve thin {kind}" points="{points}"/>')
        for one in bins:
            title = (
                f"{name}: {one.count:,} answers, confidence {_percent(one.confidence)}, right {_percent(one.accuracy)}"
            )
            radius = 3 + 6 * math.sqrt(one.count / most)
            parts.append(
                f'<circle class="{kind or "dot"}" cx="{frame.x(one.confidence):.1f}" cy="{frame.y(one.accuracy):.1f}" '
                f'r="{radius:.1f}"><title>{title}</title></circle>'
            )
    return "".join([*parts, *_quarters(frame, "confidence", _percent), "</svg>"])


def threshold_frame() -> tuple[str, Frame]:
    """The axes of the plot of thresholds, without its end; the page draws the curves of the chosen class into it."""
    frame = Frame(520, 270, 0.0, 1.0)
    label = "recall, false alarms and precision by threshold"
    return "".join([_open(frame, label), *_grid(frame, _percent), *_quarters(frame, "threshold", "{:g}".format)]), frame


def interval(estimate: Estimate) -> str:
    """A small bar from 0 to 1: the value as a dot, its interval as a line."""
    low, value, high = (2 + 92 * min(max(part, 0.0), 1.0) for part in (estimate.low, estimate.value, estimate.high))
    return (
        '<svg class="interval" viewBox="0 0 96 10" aria-hidden="true"><line class="grid" x1="2" x2="94" y1="5" y2="5"/>'
        f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="5" y2="5"/>'
        f'<circle cx="{value:.1f}" cy="5" r="3"/></svg>'
    )


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _open(frame: Frame, label: str) -> str:
    return f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(label, quote=True)}">'


def _grid(frame: Frame, written: Callable[[float], str], steps: int = 4) -> list[str]:
    parts = []
    for step in range(steps + 1):
        value = frame.low + (frame.high - frame.low) * step / steps
        y = frame.y(value)
        parts.append(
            f'<line class="grid" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{written(value)}</text>')
    return parts


def _quarters(frame: Frame, name: str, written: Callable[[float], str]) -> list[str]:
    """The horizontal axis from 0 to 1, and what it is of."""
    marks = [(value, frame.height - frame.bottom + 18, written(value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return [
        f'<text x="{frame.x(value):.1f}" y="{y}" text-anchor="middle">{text}</text>'
        for value, y, text in (*marks, (0.5, frame.height - 4, name))
    ]


def _phases(frame: Frame, records: Sequence[EpochRecord]) -> list[str]:
    """A band for each phase, every other one shaded, with its name and cut where there is room."""
    parts = []
    for number, (start, end) in enumerate(_stretches(records)):
        left, right = frame.x(start + 0.5), frame.x(end + 0.5)
        top, height = frame.top, frame.height - frame.top - frame.bottom
        record = records[start]
        name = record.phase if record.cut == record.phase else f"{record.phase} ({record.cut})"
        shade = "" if number % 2 else " shaded"
        parts.append(
            f'<rect class="phase{shade}" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{height}">'
            f"<title>phase {escape(name)}, {end - start} epochs</title></rect>"
        )
        if right - left > 9 * len(name):
            parts.append(f'<text x="{left + 6:.1f}" y="{top - 8}">{escape(name)}</text>')
    return parts


def _stretches(records: Sequence[EpochRecord]) -> list[tuple[int, int]]:
    """(first, past the last) position of each phase."""
    starts = [place for place, record in enumerate(records) if not place or record.phase != records[place - 1].phase]
    return list(zip(starts, [*starts[1:], len(records)], strict=True))


def _by_phase(frame: Frame, records: Sequence[EpochRecord], of: Callable[[EpochRecord], float], kind: str) -> list[str]:
    """One line a phase, for between phases nothing goes on; dots where there are few epochs."""
    parts = []
    for start, end in _stretches(records):
        step = max(1, len(records) // _MOST_POINTS)
        places = [place for place in range(start, end, step) if math.isfinite(of(records[place]))]
        points = " ".join(f"{frame.x(place + 1):.1f},{frame.y(of(records[place])):.1f}" for place in places)
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        if len(records) <= _FEW_POINTS:
            dot = "dot" if kind == "curve" else "second"
            for place in places:
                value, record = of(records[place]), records[place]
                parts.append(
                    f'<circle class="{dot}" cx="{frame.x(place + 1):.1f}" cy="{frame.y(value):.1f}" r="3">'
                    f"<title>{escape(record.phase)}, epoch {record.epoch}: {value:.4f}</title></circle>"
                )
    return parts


def _epochs(frame: Frame, count: int) -> list[str]:
    step = max(1, math.ceil(count / 10))
    y = frame.height - frame.bottom + 18
    marks = [
        f'<text x="{frame.x(epoch):.1f}" y="{y}" text-anchor="middle">{epoch}</text>'
        for epoch in range(1, count + 1, step)
    ]
    middle = (frame.left + frame.width - frame.right) / 2
    return [*marks, f'<text x="{middle:.1f}" y="{frame.height - 4}" text-anchor="middle">epoch</text>']
