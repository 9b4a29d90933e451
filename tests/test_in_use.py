import errno
import sys
from pathlib import Path

import pytest

from tests.in_use import IN_USE, open_elsewhere
from thaw.in_use import is_in_use, is_open_elsewhere, when_closed


def test_on_windows_a_change_is_tried_again_until_the_other_program_has_closed_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(sys, "platform", "win32")
    attempts = iter([open_elsewhere(), open_elsewhere(), None])

    def change() -> str:
        if error := next(attempts):
            raise error
        return "changed"

    assert when_closed(change) == "changed"
    assert len(pauses) == 2


def test_what_stays_open_is_an_error_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(sys, "platform", "win32")

    def change() -> None:
        raise open_elsewhere()

    with pytest.raises(PermissionError):
        when_closed(change)
    assert 3 < sum(pauses) < 10


@pytest.mark.parametrize(("system", "number"), [("linux", errno.EACCES), ("darwin", errno.EPERM), ("win32", errno.EIO)])
def test_other_errors_and_other_systems_have_one_attempt(
    system: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    attempts: list[int] = []

    def change() -> None:
        attempts.append(number)
        raise OSError(number, "denied")

    with pytest.raises(OSError, match="denied"):
        when_closed(change)
    assert attempts == [number]


def test_a_file_is_open_elsewhere_where_windows_does_not_rename_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a")

    def rename(*_: object) -> None:
        raise open_elsewhere()

    monkeypatch.setattr("os.rename", rename)
    assert not is_open_elsewhere(file)
    monkeypatch.setattr(sys, "platform", "win32")
    assert is_open_elsewhere(file)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "win32")
    assert not is_open_elsewhere(file) and file.read_text() == "a"
    assert not is_open_elsewhere(tmp_path / "none.csv")


def test_only_windows_says_that_a_file_is_in_use() -> None:
    assert is_in_use(open_elsewhere(IN_USE))
    assert not is_in_use(PermissionError(errno.EACCES, "denied")) and not is_in_use(None)
