import re

import pytest

from thaw.tuning.charts import Dot, plane


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0.783, 0.958), ["80.0", "85.0", "90.0", "95.0"]),
        ((0.81, 0.83), ["81.0", "81.5", "82.0", "82.5", "83.0"]),
        ((-1.4, -0.2), ["-140.0", "-120.0", "-100.0", "-80.0", "-60.0", "-40.0", "-20.0"]),
        ((0.5, 0.5), ["49.0", "49.5", "50.0", "50.5", "51.0"]),
    ],
)
def test_values_at_an_axis_are_round(values: tuple[float, float], labels: list[str]) -> None:
    dots = [Dot(number, value, "probe", f"probe-{number}") for number, value in enumerate(values)]
    drawn = plane(dots, "time", lambda value: f"{100 * value:.1f}", str)
    assert re.findall(r'text-anchor="end">(-?[\d.]+)<', drawn)[: len(labels)] == labels
