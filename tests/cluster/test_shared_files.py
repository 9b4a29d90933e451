"""A machine sees a file if it has it with the same size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unprivileged import unprivileged
from thaw.cluster.shared_files import differing, sizes_of


def test_a_file_of_another_size_and_one_that_is_missing_on_either_machine_differ(tmp_path: Path) -> None:
    same, other, gone, new = (tmp_path / name for name in ("same", "other", "gone", "new"))
    for file in (same, other, gone):
        file.write_bytes(b"content")
    assert not differing(sizes_of([same, other, gone, new]))
    sizes = [sizes_of([file]) for file in (same, other, gone, new)]
    other.write_bytes(b"more content")
    gone.unlink()
    new.write_bytes(b"content")
    assert [differing(size) for size in sizes] == ["", str(other), str(gone), str(new)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs the permissions of POSIX")
def test_a_file_that_may_not_be_read_differs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    sizes = sizes_of([file])
    file.chmod(0)
    assert unprivileged(lambda: differing(sizes)) == str(file)


def test_paths_are_absolute_and_one_that_cannot_be_is_missing(tmp_path: Path) -> None:
    assert sizes_of([Path("nowhere")]) == {str(Path.cwd() / "nowhere"): -1}
    assert not differing(sizes_of([tmp_path / "a\0b"]))
