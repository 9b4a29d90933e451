import pytest

from thaw.planning.costs import Forecast
from thaw.terminal.planning import forecast_line


@pytest.mark.parametrize(("processes", "start"), [(1, "forecast: 60 s"), (2, "forecast for 2 processes: 60 s")])
def test_the_forecast_says_for_how_many_processes_it_is(processes: int, start: str) -> None:
    line = forecast_line(Forecast(60.0, (30.0,), (3.0,), 5_000_000, processes))
    assert line.startswith(start) and line.endswith("5 MB of cached features")
