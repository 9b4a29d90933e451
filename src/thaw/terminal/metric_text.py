"""Values of metrics as text: fractions as percentages, losses as numbers."""

from __future__ import annotations

from thaw import formats
from thaw.metrics import Estimate, Metric


def value_text(value: float, metric: Metric) -> str:
    """A value as `84.8%`, or for a loss `0.312`."""
    return f"{value:.3f}" if metric.kind == "loss" else formats.percent(value)


def estimate_text(estimate: Estimate | None, metric: Metric) -> str:
    """An estimate with its interval, as `97.1% (94.8% to 98.6%)`, or for a loss `0.312 (0.250 to 0.402)`."""
    if estimate is None:
        return "-"
    value, low, high = (value_text(part, metric) for part in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def fraction_text(estimate: Estimate | None) -> str:
    """An estimate of a fraction with its interval, as `97.1% (94.8% to 98.6%)`; `-` where it is undefined."""
    return "-" if estimate is None else formats.interval(estimate.value, estimate.low, estimate.high)


def difference_text(difference: Estimate, metric: Metric) -> str:
    """A difference with its interval, as `+1.9 points (-0.2 to +4.0)`, or for a loss `-0.0120 (-0.0200 to -0.0040)`."""
    value, low, high = difference.value, difference.low, difference.high
    if metric.kind == "loss":
        return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"
    return f"{formats.points(value)} points ({formats.points(low)} to {formats.points(high)})"
