import hashlib
import os
from pathlib import Path

import pytest

from thaw.data import digests, reader
from thaw.data.digests import digest_files, known_digests

CONTENTS = [b"one", b"two", b"three"]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written a moment ago count as long unchanged."""
    monkeypatch.setattr(digests, "_UNCHANGED_NS", -(10**10))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    named = [tmp_path / f"{number}.png" for number in range(len(CONTENTS))]
    for file, content in zip(named, CONTENTS, strict=True):
        file.write_bytes(content)
    return named


def found(files: list[Path], memory: Path) -> list[str]:
    return digest_files(files, memory, 2, lambda done, total: None)


def read_again(files: list[Path], memory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read now."""
    read: list[str] = []

    def read_image(file: Path) -> bytes:
        read.append(file.name)
        return file.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_image_file", read_image)
        found(files, memory)
    return sorted(read)


def test_digests_are_those_of_the_files(files: list[Path], tmp_path: Path) -> None:
    expected = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
    assert found(files, tmp_path / "cache" / "memory.json") == expected
    assert found(files, tmp_path / "cache" / "memory.json") == expected


def test_only_files_that_may_have_changed_are_read_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory.json"
    found(files, memory)
    assert read_again(files, memory, monkeypatch) == []
    before = files[1].stat()
    files[1].write_bytes(b"TWO")
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(files[2])
    assert read_again(files, memory, monkeypatch) == ["1.png", "2.png"]
    assert found(files, memory)[1] == hashlib.sha256(b"TWO").hexdigest()
    assert read_again(files, memory, monkeypatch) == []


def test_one_more_file_leaves_the_others_known(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, added = tmp_path / "memory.json", tmp_path / "added.png"
    found(files, memory)
    added.write_bytes(b"four")
    assert read_again([added, *files], memory, monkeypatch) == ["added.png"]
    assert read_again([files[2], added, files[0]], memory, monkeypatch) == []
    assert found([added, *files], memory)[0] == hashlib.sha256(b"four").hexdigest()


def test_what_is_known_of_other_files_stays_while_they_exist(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory.json"
    found(files[:2], memory)
    files[0].unlink()
    found(files[2:], memory)
    assert read_again(files[1:], memory, monkeypatch) == []
    assert str(files[0]) not in memory.read_text(encoding="utf-8")


def test_a_file_that_was_written_just_before_is_read_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_UNCHANGED_NS", 2_000_000_000)
    found(files, tmp_path / "memory.json")
    assert len(read_again(files, tmp_path / "memory.json", monkeypatch)) == 3


@pytest.mark.parametrize("kind", ["vfat rw", "fuse.sshfs rw", "squashfs ro", "ext4 ro"])
def test_every_file_is_read_again_where_change_times_mean_nothing(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device, (name, mode) = files[0].stat().st_dev, kind.split()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 {os.major(device)}:{os.minor(device)} / / rw shared:1 - {name} /dev/x {mode},discard\n")
    monkeypatch.setattr(digests, "_MOUNTS", mounts)
    found(files, tmp_path / "memory.json")
    assert len(read_again(files, tmp_path / "memory.json", monkeypatch)) == 3


@pytest.mark.parametrize("damage", [b"", b'{"content": [], "crc32": 1}'])
def test_a_damaged_memory_is_as_good_as_none(files: list[Path], tmp_path: Path, damage: bytes) -> None:
    memory = tmp_path / "memory.json"
    expected = found(files, memory)
    memory.write_bytes(damage)
    assert found(files, memory) == expected


def test_a_file_that_cannot_be_read_has_its_reason_and_is_tried_again(files: list[Path], tmp_path: Path) -> None:
    memory, missing = tmp_path / "memory.json", tmp_path / "missing.png"
    assert found([*files, missing], memory)[3] == "no such file"
    missing.write_bytes(b"four")
    assert found([*files, missing], memory)[3] == hashlib.sha256(b"four").hexdigest()


def test_known_digests_are_those_of_files_that_need_not_be_read(files: list[Path], tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    assert known_digests(files, memory) is None
    digests_found = found(files, memory)
    assert known_digests(files, memory) == digests_found
    assert known_digests(files[:2], memory) == digests_found[:2]
    assert known_digests([*files, memory], memory) is None
    files[1].write_bytes(b"other")
    assert known_digests(files, memory) is None
