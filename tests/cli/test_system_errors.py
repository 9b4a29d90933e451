import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

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


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokenPipeError):
        explain(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    monkeypatch.setattr("thaw.cli.system_errors.sys.platform", "win32")
    for error in (OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument", "a?.png")):
        with pytest.raises(OSError, match="Invalid argument"):
            explain(error)


class PipeOfWindows(io.FileIO):
    """A pipe that says so in the way of Windows when nobody reads it."""

    def write(self, text: Any) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None


@pytest.mark.parametrize("length", [10, 100_000])
@pytest.mark.parametrize(("platform", "kind"), [("linux", io.FileIO), ("win32", PipeOfWindows)])
def test_a_command_whose_output_nobody_reads_any_more_ends_without_a_word(
    platform: str, kind: type[io.FileIO], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    with io.TextIOWrapper(io.BufferedWriter(kind(writer, "w")), encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr("thaw.cli.system_errors.sys.platform", platform)
        os.close(reader)
        with pytest.raises(SystemExit) as ended, system_errors_explained():
            print("x" * length)
        assert ended.value.code == 1


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
