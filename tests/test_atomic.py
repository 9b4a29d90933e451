from pathlib import Path

import pytest

from thaw import atomic


def make_sealed(folder: Path, content: bytes = b"features" * 1000) -> None:
    with atomic.sealed_folder(folder) as building:
        (building / "data.bin").write_bytes(content)


def test_a_sealed_folder_is_intact(tmp_path: Path) -> None:
    make_sealed(tmp_path / "store")
    assert atomic.is_intact(tmp_path / "store")


@pytest.mark.parametrize("damage", ["cut short", "one bit flipped", "file missing", "seal missing"])
def test_a_damaged_folder_is_detected(tmp_path: Path, damage: str) -> None:
    make_sealed(tmp_path / "store")
    data = tmp_path / "store" / "data.bin"
    content = bytearray(data.read_bytes())
    match damage:
        case "cut short":
            data.write_bytes(content[:-1])
        case "one bit flipped":
            content[17] ^= 1
            data.write_bytes(content)
        case "file missing":
            data.unlink()
        case "seal missing":
            (tmp_path / "store" / atomic.SEAL).unlink()
    assert not atomic.is_intact(tmp_path / "store")


def test_a_failure_while_building_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic.sealed_folder(tmp_path / "store") as building:
            (building / "data.bin").write_bytes(b"half")
            raise RuntimeError("no more disk")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_wins(tmp_path: Path) -> None:
    with atomic.sealed_folder(tmp_path / "store") as building:
        (building / "data.bin").write_bytes(b"mine")
        atomic_rival = tmp_path / "rival"
        make_sealed(atomic_rival, b"theirs")
        atomic_rival.rename(tmp_path / "store")
    assert (tmp_path / "store" / "data.bin").read_bytes() == b"theirs"


def test_a_damaged_folder_is_replaced(tmp_path: Path) -> None:
    make_sealed(tmp_path / "store", b"old")
    (tmp_path / "store" / "data.bin").write_bytes(b"damaged")
    make_sealed(tmp_path / "store", b"new")
    assert atomic.is_intact(tmp_path / "store")
    assert (tmp_path / "store" / "data.bin").read_bytes() == b"new"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".store.999999999.tmp"
    leftover.mkdir()
    make_sealed(tmp_path / "store")
    assert not leftover.exists()


def test_a_new_folder_never_replaces_an_existing_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("keep me")

    def overwrite() -> None:
        with atomic.new_folder(tmp_path / "model") as building:
            (building / "other").write_text("x")

    with pytest.raises(OSError):
        overwrite()
    assert (tmp_path / "model" / "mine").read_text() == "keep me"
    assert [child.name for child in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.json"
    atomic.write_text(file, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(file, "new")
    assert file.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["last.json"]


def test_a_new_file_exists_only_if_its_block_succeeds(tmp_path: Path) -> None:
    def write(fail: bool) -> None:
        with atomic.new_file(tmp_path / "model.bin") as place:
            place.write_bytes(b"whole")
            assert not (tmp_path / "model.bin").exists()
            if fail:
                raise RuntimeError("not certified")

    with pytest.raises(RuntimeError):
        write(fail=True)
    assert list(tmp_path.iterdir()) == []
    write(fail=False)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"whole"]
