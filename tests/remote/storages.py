"""Storage in the memory of this process, which fsspec reaches like any other."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from thaw.remote.storage import RemoteFile, Storage

BUCKET = "memory://bucket"


def put(files: Mapping[str, bytes], bucket: str = BUCKET) -> None:
    """Write files into a bucket."""
    fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
    for name, content in files.items():
        fsspec.filesystem("memory").pipe(f"{bucket}/{name}", content)


def put_folder(folder: Path, to: str, bucket: str = BUCKET) -> None:
    """Copy a local folder into a bucket."""
    files = (file for file in folder.rglob("*") if file.is_file())
    put({f"{to}/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}, bucket)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def downloads(monkeypatch: pytest.MonkeyPatch, fails_at: Iterable[Exception | None] = ()) -> Iterator[list[str]]:
    """The names of the files that are downloaded within the block; the n-th fails with the n-th error."""
    original, names, failures = Storage.download, list[str](), iter(fails_at)

    def download(self: Storage, file: RemoteFile, to: Path) -> None:
        if failure := next(failures, None):
            to.write_bytes(b"half")
            raise failure
        original(self, file, to)
        names.append(file.name.removeprefix("/bucket/"))

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "download", download)
        yield names
