import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Outcomes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Exit codes, the lines that each process wrote, and seconds, by case."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        command = [sys.executable, "-m", "tests.distributed.joining_processes", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tensors_are_summed_and_broadcast(outcomes: Outcomes) -> None:
    assert outcomes["exchange"]["codes"] == [0, 0]


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("error of the main process", "the main process cannot go on"),
        ("error in an inner block", "the main process cannot go on"),
        ("error of another process", "process 1 cannot go on"),
        ("error while tensors are exchanged", "the main process cannot go on"),
        ("another version", "process 1 has another version of Thaw (0.1) than process 0 (0.0); install the same"),
    ],
)
def test_an_error_is_said_once_and_ends_all_processes_at_once(outcomes: Outcomes, case: str, sentence: str) -> None:
    found = outcomes[case]
    assert found["codes"] == [2, 2]
    ((line,),) = (lines for lines in found["said"] if lines)
    assert line.startswith(sentence)
    assert found["seconds"] < 15


def test_a_port_in_use_is_one_sentence(outcomes: Outcomes) -> None:
    found = outcomes["a port in use"]
    assert found["codes"] == [2, 2]
    (first,), (second,) = found["said"]
    assert "2 processes cannot meet at localhost" in first and "choose a free port" in first
    assert "process 1 has not met the others at localhost" in second or "cannot meet" in second


def test_who_exchanges_tensors_with_a_killed_process_ends_at_once_to_be_restarted(outcomes: Outcomes) -> None:
    found = outcomes["killed"]
    assert found["codes"] == [1, -9]
    assert "another process has ended" in found["said"][0][0]
    assert found["seconds"] < 30
