"""When to stop: what more labels would give, from the learning curve of the labels so far."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.formats import percent, points
from thaw.inspection.learning_curve import gain_of_more, measure_learning_curve
from thaw.inspection.linear_probe import Features

MORE = 100
"""The labels that a gain is estimated for."""


@dataclass(frozen=True)
class Outlook:
    """What the labels so far give and more would give.

    Attributes:
        accuracy: Cross-validated accuracy of a linear head, 0..1; `None` where it cannot be measured.
        gain: What `MORE` more labels are expected to add to it; `None` where that cannot be estimated.
        sentence: The same for the user.
    """

    accuracy: float | None
    gain: float | None
    sentence: str


def look_ahead(features: Features) -> Outlook:
    """Measure the learning curve of the labelled images, and extrapolate it."""
    curve = measure_learning_curve(features)
    if curve is None or not curve.measured:
        return Outlook(None, None, f"{MORE} more labels: cannot be estimated before every class has two labels")
    accuracy, gain = curve.measured[-1].accuracy, gain_of_more(curve, MORE)
    so_far = f"(now {percent(accuracy)}, cross-validated)"
    if gain is None:
        return Outlook(accuracy, None, f"{MORE} more labels: cannot be estimated from so few {so_far}")
    return Outlook(accuracy, gain, f"{MORE} more labels: about {points(gain)} points {so_far}")
