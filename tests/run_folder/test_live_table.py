import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.in_use import on_windows
from tests.reporters import Listening
from thaw import atomic
from thaw.errors import WriteError
from thaw.run_folder.live_table import LiveTable

Write = Callable[[Sequence[int]], None]


def writes(file: Path) -> Write:
    return lambda rows: atomic.write_text(file, ",".join(map(str, rows)))


def test_a_table_that_is_open_in_excel_is_said_once_and_written_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reporter, opened = tmp_path / "metrics.csv", Listening(), {"metrics.csv"}
    on_windows(monkeypatch, lambda path: path.name in opened)
    table = LiveTable(file, writes(file), reporter)
    opened.clear()
    table.write([1])
    opened.add(file.name)
    table.write([1, 2])
    table.write([1, 2, 3])
    assert file.read_text() == "1"
    (said,) = reporter.said
    assert said.startswith(f"{file}: is open in another program, such as Excel")
    opened.clear()
    table.write([1, 2, 3, 4])
    assert file.read_text() == "1,2,3,4"
    assert len(reporter.said) == 1


def test_only_the_first_write_waits_for_a_table_that_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metrics.csv"
    refused = on_windows(monkeypatch, lambda path: path == file)
    table = LiveTable(file, writes(file), Listening())
    table.write([1])
    file.write_text("")
    after_first = len(refused)
    table.write([1, 2])
    assert after_first > 5 and len(refused) == after_first + 1


def test_the_last_write_has_to_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opened = tmp_path / "metrics.csv", {"metrics.csv"}
    file.write_text("old")
    on_windows(monkeypatch, lambda path: path.name in opened)
    table = LiveTable(file, writes(file), Listening())
    table.write([1])
    with pytest.raises(WriteError, match=r"metrics\.csv: is open in another program"):
        table.finish([1])
    opened.clear()
    table.finish([1])
    assert file.read_text() == "1"


def test_on_windows_a_resumed_run_without_another_epoch_writes_what_its_last_process_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metrics.csv"
    monkeypatch.setattr(sys, "platform", "win32")
    LiveTable(file, writes(file), Listening()).finish([1, 2])
    assert file.read_text() == "1,2"


def test_elsewhere_each_table_is_written_once_and_every_error_is_one(tmp_path: Path) -> None:
    written: list[Sequence[int]] = []
    table = LiveTable(tmp_path / "metrics.csv", written.append, Listening())
    table.finish([])
    table.write([1])
    table.finish([1])
    assert written == [[1]]

    def denied(rows: Sequence[int]) -> None:
        raise WriteError(tmp_path, "permission denied") from PermissionError(errno.EACCES, "denied")

    with pytest.raises(WriteError, match="permission denied"):
        LiveTable(tmp_path / "metrics.csv", denied, Listening()).write([1])
