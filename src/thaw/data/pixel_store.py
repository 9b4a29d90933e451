"""Decode once: every image of a data set as resized pixels in one memory-mapped file."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from thaw import atomic
from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.errors import DataError, UnreadableImage
from thaw.recipe import DecodeSettings

FORMAT = 1
_PIXELS, _FACTS = "pixels.bin", "facts.parquet"
_WINDOW = 64
_FACT_SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("note", pa.string()),
        ("offset", pa.int64()),
        ("stored_width", pa.int32()),
        ("stored_height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class _Row:
    """What reading one file gave: pixels, or the reason why there are none."""

    sha256: str | None
    bytes: int | None
    width: int | None
    height: int | None
    mode: str | None
    reason: str | None
    note: str
    pixels: np.ndarray | None


class PixelStore:
    """Pixels of every row of a manifest, resized by one `PixelSpec`; rows that cannot be read have none."""

    def __init__(self, folder: Path, key: str, spec: PixelSpec) -> None:
        self.key = key
        self.spec = spec
        self.facts: pa.Table = pq.read_table(folder / _FACTS)
        file = folder / _PIXELS
        self._pixels = np.memmap(file, dtype=np.uint8, mode="r")
        self._offsets = self.facts.column("offset").to_numpy()
        self._widths = self.facts.column("stored_width").to_numpy()
        self._heights = self.facts.column("stored_height").to_numpy()

    @classmethod
    def open_or_build(
        cls,
        manifest: Manifest,
        spec: PixelSpec,
        settings: DecodeSettings,
        cache: Path,
        workers: int,
        on_progress: Callable[[int, int], None],
    ) -> PixelStore:
        """The store of a data set: the one of an earlier run when it is whole and no file has changed, else a new one.

        Raises `DataError` when no image at all can be read, at the first unreadable one under `decode.strict`, and
        when the disk is full.
        """
        key = _key(manifest, spec, settings)
        folder = cache / "pixels" / key
        if not atomic.is_intact(folder):
            try:
                _build(folder, manifest, spec, settings, workers, on_progress)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise DataError(f"{cache}: the disk is full; free some space or set THAW_CACHE elsewhere") from error
        on_progress(len(manifest), len(manifest))
        store = cls(folder, key, spec)
        store._check(manifest, settings)
        return store

    def read(self, row: int) -> np.ndarray:
        """The resized image of a readable row, (H, W, 3) uint8, read-only."""
        height, width = int(self._heights[row]), int(self._widths[row])
        if not height:
            raise IndexError(f"row {row} could not be read and has no pixels")
        start = int(self._offsets[row])
        return self._pixels[start : start + height * width * 3].reshape(height, width, 3)

    def plain(self, row: int) -> np.ndarray:
        """The plain view of a readable row, (size, size, 3) uint8."""
        return self.spec.crop(self.read(row))

    def describe(self, manifest: Manifest) -> Manifest:
        """The manifest with what decoding found in each file."""
        names = ("sha256", "bytes", "width", "height", "mode", "status", "reason")
        return manifest.with_columns({name: self.facts.column(name) for name in names})

    def notes(self) -> list[str]:
        """Sentences about images that were read, but not as a person may expect."""
        noted = [note for note in self.facts.column("note").to_pylist() if note]
        return [f"{len(noted)} files have several pages; only the first of each is used"] if noted else []

    def _check(self, manifest: Manifest, settings: DecodeSettings) -> None:
        reasons = self.facts.column("reason").to_pylist()
        broken = [row for row, reason in enumerate(reasons) if reason is not None]
        if broken and (settings.strict or len(broken) == len(manifest)):
            first = f"{manifest.file(broken[0])}: {reasons[broken[0]]}"
            if settings.strict:
                raise DataError(f"{first}; without --strict such images are listed and left out")
            raise DataError(f"none of the {len(manifest)} images can be read; the first: {first}")


def _build(
    folder: Path,
    manifest: Manifest,
    spec: PixelSpec,
    settings: DecodeSettings,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> None:
    facts: dict[str, list] = {name: [] for name in _FACT_SCHEMA.names}
    offset = 0
    with atomic.sealed_folder(folder) as building:
        with (building / _PIXELS).open("wb") as stream:
            for done, row in enumerate(_read_in_order(manifest, spec, settings, workers), start=1):
                if row.reason is not None and settings.strict:
                    raise DataError(f"{manifest.file(done - 1)}: {row.reason}; without --strict it is listed and left out")
                height, width = (0, 0) if row.pixels is None else row.pixels.shape[:2]
                values = {**_facts_of(row), "offset": offset, "stored_width": width, "stored_height": height}
                for name, column in facts.items():
                    column.append(values[name])
                if row.pixels is not None:
                    stream.write(np.ascontiguousarray(row.pixels).data)
                    offset += row.pixels.size
                on_progress(done, len(manifest))
            if offset == 0:
                stream.write(b"\0")
        pq.write_table(pa.table(facts, schema=_FACT_SCHEMA), building / _FACTS)


def _facts_of(row: _Row) -> dict[str, object]:
    """The facts of a row, without its pixels."""
    return {
        "sha256": row.sha256,
        "bytes": row.bytes,
        "width": row.width,
        "height": row.height,
        "mode": row.mode,
        "status": "ok" if row.reason is None else "error",
        "reason": row.reason,
        "note": row.note,
    }


def _read_in_order(manifest: Manifest, spec: PixelSpec, settings: DecodeSettings, workers: int) -> Iterator[_Row]:
    """Every row, in order, read by a pool that is at most a window ahead, so memory does not grow."""
    files = (manifest.file(row) for row in range(len(manifest)))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        window: list[Future[_Row]] = [pool.submit(_read, file, spec, settings) for file in islice(files, _WINDOW)]
        while window:
            row = window.pop(0).result()
            window.extend(pool.submit(_read, file, spec, settings) for file in islice(files, 1))
            yield row


def _read(file: Path, spec: PixelSpec, settings: DecodeSettings) -> _Row:
    try:
        data = file.read_bytes()
    except OSError as error:
        return _Row(None, None, None, None, None, error.strerror or str(error), "", None)
    digest = hashlib.sha256(data).hexdigest()
    try:
        image = decode(data, settings, spec)
    except UnreadableImage as error:
        return _Row(digest, len(data), None, None, None, str(error), "", None)
    return _Row(digest, len(data), image.width, image.height, image.mode, None, image.note, image.pixels)


def _key(manifest: Manifest, spec: PixelSpec, settings: DecodeSettings) -> str:
    """What determines the pixels: each file's path, size and time of change, the geometry, the rules of decoding."""
    digest = hashlib.sha256()
    rules = {"format": FORMAT, "pillow": PIL.__version__, "spec": asdict(spec), "decode": settings.model_dump()}
    digest.update(json.dumps(rules, sort_keys=True).encode())
    for row in range(len(manifest)):
        file = manifest.file(row)
        try:
            found = file.stat()
            digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{file}\0absent\n".encode())
    return digest.hexdigest()[:32]
