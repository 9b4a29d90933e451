from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from thaw.cli.leaving import leave

def late():
    time.sleep(0.2)
    print("thread", flush=True)

pool = ThreadPoolExecutor(1)
pool.submit(print, "pool").result()
atexit.register(print, "at exit")
threading.Thread(target=late).start()
sys.stdout.write("unfinished line")
leave({code})
"""


@pytest.mark.parametrize("code", [0, 2])
def test_everything_is_said_and_done_before_a_process_ends(code: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(code=code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.split() == ["pool", "unfinished", "linethread", "at", "exit"]


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["train", "nowhere"], 2), (["unknown"], 2)])
def test_a_command_ends_with_its_exit_code(words: list[str], code: int) -> None:
    command = [sys.executable, "-m", "thaw", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stdout if code == 0 else done.stderr


def test_objects_are_not_freed_one_by_one() -> None:
    program = (
        "import sys\nfrom thaw.cli import command\n"
        "class Slow:\n    def __del__(self): print('freed')\n"
        "kept = Slow(); sys.argv = ['thaw', '--version']\ncommand()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "freed" not in done.stdout
