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


def check(story: dict[str, Any]) -> None:
    assert story["deaths"]
    for death in story["deaths"]:
        assert death["died"] == -signal.SIGKILL, death
        assert death["resumed"] == 0, death
        for what in ("weights", "metrics", "runs"):
            assert death[what] == story["whole"][what], (death["moment"], death["kind"], what)


def test_a_run_killed_in_any_phase_or_while_it_writes_a_file_ends_with_the_same_weights_bit_for_bit(
    images: Path, tmp_path: Path
) -> None:
    story = kill_every(13, images, tmp_path)
    check(story)
    assert {death["kind"] for death in story["deaths"]} == {"flush", "replace", "step"}


@pytest.mark.slow
def test_so_does_a_run_killed_at_each_single_moment(images: Path, tmp_path: Path) -> None:
    check(kill_every(1, images, tmp_path))
