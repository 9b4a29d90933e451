import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_are_compared_with_one() -> None:
    tiny = "--case mobilenetv3_small_050:stages:1:8 --images 64 --size 32 --rounds 1 --epochs 2 --engine pytorch-fp32"
    command = [sys.executable, "bench/processes.py", *tiny.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("efficiency") == 2
