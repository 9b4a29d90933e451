from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.storages import BUCKET, put


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for one test."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bucket(cache: Path) -> Iterator[str]:
    """A bucket with three images, a hidden file, and a file elsewhere."""
    fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
    put({"images/ok/1.png": b"one", "images/ok/2.png": b"two", "images/bad/3.png": b"three"})
    put({"images/.hidden": b"hidden", "other/4.png": b"four"})
    yield BUCKET
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
