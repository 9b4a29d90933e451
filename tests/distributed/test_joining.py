import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def outcome(case: str, port: int | None = None) -> dict[str, Any]:
    """Exit codes, and the lines that each process wrote."""
    if port is None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.distributed.joining_processes", case, str(port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tensors_are_summed_and_broadcast() -> None:
    assert outcome("exchange")["codes"] == [0, 0]


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("error of the main process", "the main process cannot go on"),
        ("error of another process", "process 1 cannot go on"),
        ("error while tensors are exchanged", "the main process cannot go on"),
        ("another version", "process 1 has another version of Thaw (0.1) than process 0 (0.0); install the same"),
    ],
)
def test_an_error_is_said_once_and_ends_all_processes_at_once(case: str, sentence: str) -> None:
    found = outcome(case)
    assert found["codes"] == [2, 2]
    ((line,),) = (lines for lines in found["said"] if lines)
    assert line.startswith(sentence)
    assert found["seconds"] < 30


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        found = outcome("exchange", taken.getsockname()[1])
    assert found["codes"] == [2, 2]
    (first,), (second,) = found["said"]
    assert "2 processes cannot meet at localhost" in first and "choose a free port" in first
    assert "process 1 has not met the others at localhost" in second or "cannot meet" in second


def test_who_exchanges_tensors_with_a_killed_process_ends_at_once_to_be_restarted() -> None:
    found = outcome("killed")
    assert found["codes"] == [1, -9]
    assert "another process has ended" in found["said"][0][0]
    assert found["seconds"] < 30
