import os
import subprocess
import sys
from pathlib import Path

import pytest

from thaw.locks import lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


def test_a_lock_keeps_other_processes_out_until_its_own_ends(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    program = "import os, sys; from thaw.locks import lock; print(lock(os.open(sys.argv[1], os.O_RDONLY)), flush=True)"
    child = [sys.executable, "-c", f"{program}; input()", tmp_path / "file"]
    with (
        (tmp_path / "file").open("rb") as ours,
        subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdout and other.stdout.readline() == "True\n"
        assert lock(ours.fileno()) is False
        other.kill()
        other.wait()
        assert lock(ours.fileno()) is True


def test_a_file_that_its_last_owner_has_removed_cannot_be_locked(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("ab") as late:
        file.unlink()
        assert lock(late.fileno(), file) is False
        with file.open("ab") as new:
            assert lock(late.fileno(), file) is False
            assert lock(new.fileno(), file) is True


def test_a_file_system_without_locks_is_neither_locked_nor_taken() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    assert lock(reading) is None
