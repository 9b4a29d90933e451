import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def kill_every(stride: int, images: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.promises.killed_runs", str(images), str(folder), str(stride)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(result: dict[str, Any]) -> None:
    assert result["kills"]
    for kill in result["kills"]:
        assert kill["exit_code"] == -signal.SIGKILL, kill
        assert kill["resumed"] == 0, kill
        for key in ("weights", "metrics", "runs"):
            assert kill[key] == result["uninterrupted"][key], (kill["moment"], kill["kind"], key)


@pytest.mark.parametrize("stride", [29, pytest.param(13, marks=[pytest.mark.slow, pytest.mark.ci])])
def test_a_run_killed_in_any_phase_or_while_writing_a_file_resumes_to_bit_identical_weights(
    stride: int, images: Path, tmp_path: Path
) -> None:
    result = kill_every(stride, images, tmp_path)
    check(result)
    assert {kill["kind"] for kill in result["kills"]} == {"flush", "replace", "step"}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_bit_identical_weights(images: Path, tmp_path: Path) -> None:
    check(kill_every(1, images, tmp_path))
