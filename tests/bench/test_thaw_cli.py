import json

import pytest

from bench.versus.interface import Measurements
from bench.versus.memory import PeakMemory
from bench.versus.peers.thaw_cli import Trial, read_times
from thaw.run_folder import RunFolder


def test_the_parts_of_a_run_add_up_to_its_wall_time(trained: RunFolder) -> None:
    seconds = json.loads((trained.path / "plan.json").read_text())["actual"]["seconds"]
    outcome = Measurements()
    read_times(Trial(trained.path, seconds + 5, PeakMemory(0)), outcome)
    assert sum(outcome.seconds.values()) == pytest.approx(seconds + 5)
    assert outcome.seconds["start"] == pytest.approx(5)
    assert all(part >= 0 for part in outcome.seconds.values())
    assert [len(times) for times in outcome.epoch_seconds.values()] == [2, 2]
