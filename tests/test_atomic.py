import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.in_use import on_windows
from thaw import atomic, temporary
from thaw.errors import WriteError


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


def test_two_builders_of_the_same_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    with atomic.sealed_folder(tmp_path / "store") as first:
        (first / "data.bin").write_bytes(b"first")
        with atomic.sealed_folder(tmp_path / "store") as second:
            (second / "data.bin").write_bytes(b"second")
        assert (first / "data.bin").read_bytes() == b"first"
    assert atomic.is_intact(tmp_path / "store")
    assert (tmp_path / "store" / "data.bin").read_bytes() == b"second"
    assert [child.name for child in tmp_path.iterdir()] == ["store"]


def test_many_builders_of_a_damaged_folder_leave_an_intact_one(tmp_path: Path) -> None:
    make_sealed(tmp_path / "store")
    (tmp_path / "store" / "data.bin").write_bytes(b"damaged")
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda _: make_sealed(tmp_path / "store"), range(24)):
            assert atomic.is_intact(tmp_path / "store")
    assert [child.name for child in tmp_path.iterdir()] == ["store"]


def test_a_folder_is_published_though_another_builder_has_just_removed_the_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sealed(tmp_path / "store")
    (tmp_path / "store" / "data.bin").write_bytes(b"damaged")
    replace = os.replace

    def replace_slowly(source: Path, place: Path) -> None:
        try:
            replace(source, place)
        except OSError:
            shutil.rmtree(place)
            raise

    monkeypatch.setattr("os.replace", replace_slowly)
    make_sealed(tmp_path / "store")
    assert atomic.is_intact(tmp_path / "store")
    assert [child.name for child in tmp_path.iterdir()] == ["store"]


def test_a_link_to_a_damaged_folder_is_replaced_and_what_it_leads_to_is_kept(tmp_path: Path) -> None:
    make_sealed(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "data.bin").write_bytes(b"damaged")
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")
    make_sealed(tmp_path / "store")
    assert atomic.is_intact(tmp_path / "store")
    assert (tmp_path / "elsewhere" / "data.bin").read_bytes() == b"damaged"


def test_what_another_builder_published_in_the_meantime_is_not_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sealed(tmp_path / "rival", b"theirs")
    make_sealed(tmp_path / "store")
    (tmp_path / "store" / "data.bin").write_bytes(b"damaged")
    is_intact = atomic.is_intact

    def is_intact_slowly(folder: Path) -> bool:
        answer = is_intact(folder)
        if not answer and (tmp_path / "rival").exists():
            shutil.rmtree(folder)
            (tmp_path / "rival").rename(folder)
        return answer

    monkeypatch.setattr(atomic, "is_intact", is_intact_slowly)
    make_sealed(tmp_path / "store", b"mine")
    assert (tmp_path / "store" / "data.bin").read_bytes() == b"theirs"
    assert [child.name for child in tmp_path.iterdir()] == ["store"]


def test_what_was_published_before_the_last_attempt_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sealed(tmp_path / "rival", b"theirs")
    make_sealed(tmp_path / "store")
    (tmp_path / "store" / "data.bin").write_bytes(b"damaged")

    def published_at_last(seconds: float) -> None:
        if seconds > 0.1:
            shutil.rmtree(tmp_path / "store")
            (tmp_path / "rival").rename(tmp_path / "store")

    monkeypatch.setattr(atomic, "discard", lambda *_, **__: None)
    monkeypatch.setattr("time.sleep", published_at_last)
    monkeypatch.setattr(atomic, "_ATTEMPTS", 8)
    make_sealed(tmp_path / "store", b"mine")
    assert (tmp_path / "store" / "data.bin").read_bytes() == b"theirs"


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_what_takes_the_place_of_a_damaged_folder_before_it_is_locked_is_not_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    lock = temporary.lock

    def slowly(handle: int) -> bool | None:
        (tmp_path / "store").rename(tmp_path / "gone")
        (tmp_path / "store").mkdir()
        return lock(handle)

    monkeypatch.setattr(temporary, "lock", slowly)
    temporary.discard(tmp_path / "store")
    assert (tmp_path / "store").is_dir()


def test_a_new_folder_never_replaces_an_existing_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("keep me")

    def overwrite() -> None:
        with atomic.new_folder(tmp_path / "model") as building:
            (building / "other").write_text("x")

    with pytest.raises(WriteError, match="already exists"):
        overwrite()
    assert (tmp_path / "model" / "mine").read_text() == "keep me"
    assert [child.name for child in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.json"
    atomic.write_text(file, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match=r"last\.json: cannot be written: the disk is full \(3 bytes needed\)"):
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


@pytest.mark.parametrize("name", ["rows.parquet", "seal.json"])
def test_a_flipped_bit_is_detected_although_size_and_time_are_the_same(tmp_path: Path, name: str) -> None:
    with atomic.sealed_folder(tmp_path / "store") as building:
        (building / "rows.parquet").write_bytes(b"label 0" * 100)
    file = tmp_path / "store" / name
    state, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not atomic.is_intact(tmp_path / "store")


def test_a_large_file_of_unchanged_size_and_time_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sealed(tmp_path / "store", bytes(100))
    monkeypatch.setattr(atomic, "SMALL", 99)
    monkeypatch.setattr(atomic, "_checksum", lambda file: pytest.fail(f"{file} was read"))
    assert atomic.is_intact(tmp_path / "store")


def test_a_file_that_is_summed_as_it_is_written_is_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksums: dict[Path, int] = {}
    read, checksum = [], atomic._checksum
    monkeypatch.setattr(atomic, "_checksum", lambda file: read.append(file.name) or checksum(file))
    with atomic.sealed_folder(tmp_path / "store", checksums=checksums) as building:
        with atomic.summing(building / "data.bin", checksums) as stream:
            for part in (b"features", memoryview(bytes(range(24))).cast("B", (2, 3, 4)), b""):
                stream.write(part)
        (building / "rows.json").write_text("[]", encoding="utf-8")
    assert read == ["rows.json"]
    assert atomic.is_intact(tmp_path / "store")
    data = tmp_path / "store" / "data.bin"
    assert data.read_bytes() == b"features" + bytes(range(24))
    data.write_bytes(b"Features" + bytes(range(24)))
    assert not atomic.is_intact(tmp_path / "store")


def test_checked_json_is_read_back_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "pairs.json"
    assert atomic.read_checked(file) is None
    atomic.write_checked(file, [[1, 2], [3, 4]])
    assert atomic.read_checked(file) == [[1, 2], [3, 4]]
    for damaged in (file.read_text().replace("3", "7"), "[[1, 2]]", "{", ""):
        file.write_text(damaged)
        assert atomic.read_checked(file) is None


def test_a_full_disk_while_a_folder_is_filled_names_the_folder(tmp_path: Path) -> None:
    def fill(error: OSError) -> None:
        with atomic.sealed_folder(tmp_path / "store", "features need about 3.0 GB"):
            raise error

    with pytest.raises(WriteError, match=r"store: cannot be written: the disk is full \(features need about 3\.0 GB\)"):
        fill(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(WriteError, match="the disk quota is used up"):
        fill(OSError(errno.EDQUOT, "Disk quota exceeded"))
    with pytest.raises(PermissionError):
        fill(PermissionError(errno.EACCES, "Permission denied", "an image"))


def test_a_file_with_a_long_name_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 251 + ".png")
    atomic.write_bytes(file, b"whole")
    assert file.read_bytes() == b"whole"


def test_on_windows_what_another_program_has_open_for_a_moment_is_replaced_once_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic.write_text(tmp_path / "plan.json", "old")
    moments = iter([True, True] * 2)
    refused = on_windows(monkeypatch, lambda path: path.parent == tmp_path and next(moments, False))
    atomic.write_text(tmp_path / "plan.json", "new")
    with atomic.new_folder(tmp_path / "model") as building:
        (building / "config.json").write_text("{}")
    assert (tmp_path / "plan.json").read_text() == "new" and (tmp_path / "model" / "config.json").is_file()
    assert len(refused) == 4
    assert sorted(child.name for child in tmp_path.iterdir()) == ["model", "plan.json"]


def test_on_windows_an_export_and_a_cache_entry_survive_a_virus_scanner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: set[str] = set()

    def is_scanned(path: Path) -> bool:
        is_new = path.name not in scanned
        scanned.add(path.name)
        return is_new

    refused = on_windows(monkeypatch, is_scanned)
    with atomic.new_file(tmp_path / "model.onnx") as file:
        file.write_bytes(b"graph")
    make_sealed(tmp_path / "store")
    assert (tmp_path / "model.onnx").read_bytes() == b"graph" and atomic.is_intact(tmp_path / "store")
    assert "model.onnx" in refused and "store" in refused


def test_on_windows_the_entry_of_another_builder_is_taken_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sealed(tmp_path / "store")
    on_windows(monkeypatch, lambda path: path == tmp_path / "store")
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    make_sealed(tmp_path / "store")
    assert atomic.is_intact(tmp_path / "store") and pauses == []
