import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.locking import locked
from thaw.temporary import LEFT_OVER_AFTER, discard, remove_leftovers, temporary

DIES_WHILE_BUILDING = """
import os, signal, sys
from pathlib import Path
from thaw.temporary import temporary

with temporary(Path(sys.argv[1]), Path.mkdir) as path:
    (path / "data.bin").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIES_WHILE_BUILDING, tmp_path / "store"], check=False)
    assert done.returncode == -signal.SIGKILL
    (left_over,) = hidden(tmp_path)
    with temporary(tmp_path / "store", Path.mkdir) as building:
        remove_leftovers(tmp_path, "other")
        assert hidden(tmp_path) == sorted([left_over, building.name])
        remove_leftovers(tmp_path, "store")
        assert hidden(tmp_path) == [building.name]
        remove_leftovers(tmp_path)
        assert hidden(tmp_path) == [building.name]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", [".store.1.tmp", ".store.0123456789abcdef.tmp"])
def test_where_nothing_can_be_locked_age_decides(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.temporary.lock", lambda _: None)
    left_over = tmp_path / name
    left_over.mkdir()
    (left_over / "data.bin").write_bytes(b"half")
    long_ago = time.time() - LEFT_OVER_AFTER - 60
    os.utime(left_over, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert left_over.exists()
    os.utime(left_over / "data.bin", (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert not left_over.exists()


def test_names_of_earlier_releases_are_judged_by_age_because_these_did_not_lock(tmp_path: Path) -> None:
    in_use = tmp_path / ".store.1.tmp"
    in_use.mkdir()
    remove_leftovers(tmp_path)
    assert in_use.exists()


def test_a_discarded_folder_is_gone_and_an_absent_one_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.bin").write_bytes(b"whole")
    discard(tmp_path / "store")
    discard(tmp_path / "store")
    assert hidden(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_what_another_process_holds_locked_is_left_to_it_and_is_no_remainder(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with locked(tmp_path / "store"):
        assert discard(tmp_path / "store") is None and hidden(tmp_path) == ["store"]
    assert discard(tmp_path / "store") is None and hidden(tmp_path) == []
