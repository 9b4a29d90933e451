import errno
import os
import sys
from pathlib import Path

import pytest

from thaw.cli.system_errors import system_errors_explained
from thaw.errors import ThawError


def explain(error: OSError) -> None:
    with system_errors_explained():
        raise error


def test_an_error_about_a_path_is_one_sentence() -> None:
    with pytest.raises(ThawError, match=r"^/data/a\.png: permission denied$"):
        explain(PermissionError(errno.EACCES, "Permission denied", "/data/a.png"))
    with pytest.raises(ThawError, match=r"^/data/a\.bin: cannot be written: the disk is full; free some space$"):
        explain(OSError(errno.ENOSPC, "No space left on device", "/data/a.bin"))
    with pytest.raises(ThawError, match=r"^standard output or a file: cannot be written: the disk quota is used up"):
        explain(OSError(errno.EDQUOT, "Disk quota exceeded"))


def test_other_errors_pass() -> None:
    with pytest.raises(BrokenPipeError):
        explain(BrokenPipeError(errno.EPIPE, "Broken pipe"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = os.open("/dev/full", os.O_WRONLY)
    with open(handle, "w", encoding="utf-8") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        with (
            pytest.raises(ThawError, match=r"^standard output: cannot be written: the disk is full"),
            system_errors_explained(),
        ):
            print("a line")
