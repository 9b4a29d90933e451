import os
from pathlib import Path

import pytest

from thaw import atomic
from thaw.cache import cache_entries, clear, make_room


def store(cache: Path, kind: str, name: str, size: int, used: float) -> Path:
    folder = cache / kind / name
    with atomic.sealed_folder(folder) as building:
        (building / "data.bin").write_bytes(bytes(size))
    os.utime(folder / atomic.SEAL, (used, used))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    store(tmp_path, "features", "old", 1000, 1.0)
    store(tmp_path, "features", "new", 1000, 3.0)
    store(tmp_path, "pixels", "images", 5000, 2.0)
    return tmp_path


def test_entries_are_listed_least_recently_used_first(cache: Path) -> None:
    assert [item.folder.name for item in cache_entries(cache)] == ["old", "images", "new"]
    assert all(item.size > 1000 for item in cache_entries(cache))
    assert cache_entries(cache / "nowhere") == []


def test_room_is_made_by_removing_only_the_least_recently_used_features(cache: Path) -> None:
    size = sum(item.size for item in cache_entries(cache) if item.kind == "features")
    assert not make_room(cache, 10, size + 10)
    assert [item.folder.name for item in make_room(cache, 10, size)] == ["old"]
    assert [item.folder.name for item in cache_entries(cache)] == ["images", "new"]
    assert [item.folder.name for item in make_room(cache, 10, 0)] == ["new"]
    assert [item.folder.name for item in cache_entries(cache)] == ["images"]


def test_clearing_removes_one_kind_or_all(cache: Path) -> None:
    assert len(clear(cache, ("features",))) == 2
    assert [item.kind for item in cache_entries(cache)] == ["pixels"]
    assert len(clear(cache)) == 1 and cache_entries(cache) == []


def test_entries_being_written_are_not_listed(cache: Path) -> None:
    (cache / "features" / ".half.123.tmp").mkdir()
    assert len(cache_entries(cache)) == 3
