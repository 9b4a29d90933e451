import pytest

from thaw.planning.costs import Forecast
from thaw.terminal.planning import forecast_line


@pytest.mark.parametrize(("processes", "start"), [(1, "forecast: 60 s"), (2, "forecast for 2 processes: 60 s")])
def test_the_forecast_says_for_how_many_processes_it_is(processes: int, start: str) -> None:
    line = forecast_line(Forecast(60.0, (30.0,), (3.0,), 5_000_000, processes))
    assert line.startswith(start) and line.endswith("5 MB of cached features")


@pytest.mark.parametrize(("processes", "end"), [(1, "1.6 GB of memory"), (2, "1.6 GB of memory in each process")])
@pytest.mark.parametrize(("disk", "features"), [(5_000_000, "5 MB of cached features"), (0, "no features are cached")])
def test_the_forecast_says_how_much_memory_a_process_takes(processes: int, end: str, disk: int, features: str) -> None:
    line = forecast_line(Forecast(60.0, (30.0,), (3.0,), disk, processes, 1_600_000_000))
    assert line.endswith(f"{features}, {end}")
