"""The cache of decoded images: every image of a manifest as resized RGB pixels in one file, kept between runs.

A store has a key of everything that determines its content, is sealed when it is complete (see `thaw.atomic`), and is
rebuilt if it was damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from thaw import atomic, parquet
from thaw.cache import ATTEMPTS, LARGER_DISK, limit_pixels
from thaw.data.capture import Capture
from thaw.data.decoding import DecodedFile, DecodedRow, Decoding
from thaw.data.digests import digest_files, known_digests, memory_of
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import SCHEMA, Manifest
from thaw.data.reader import current_reader
from thaw.errors import DataError, UnreadableImage, WriteError
from thaw.formats import count, size
from thaw.piecewise import PiecewiseFile
from thaw.progress import Bar, NullReporter, OnProgress
from thaw.recipe import DecodeSettings
from thaw.remote import shown
from thaw.temporary import discard
from thaw.writing import advising, failure, is_full

if TYPE_CHECKING:
    from thaw.data.duplicates import NearDuplicate

FORMAT = 4
"""Version of the content: increases when its meaning or a rule of `thaw.data.decode` changes."""

ROWS = "rows.parquet"
"""File of a store with a row for each image."""

_PIXELS, _ABOUT = "pixels.bin", "about.json"
_FACTS = ("sha256", "bytes", "width", "height", "mode", "status", "reason")
_SCHEMA = pa.schema(
    [SCHEMA.field(name) for name in _FACTS]
    + [(name, pa.string()) for name in ("note", "captured", "device")]
    + [("stored_width", pa.int32()), ("stored_height", pa.int32())]
)


def _key(decoding: Decoding, digests: Sequence[str]) -> str:
    """The key of a store of files with this content."""
    spec, settings = decoding.spec, decoding.settings
    rules = (FORMAT, PIL.__version__, spec, settings.max_pixels, settings.white_level, decoding.reduce_jpeg)
    return hashlib.sha256(repr((rules, digests)).encode()).hexdigest()[:32]


def key_of_store(manifest: Manifest, spec: PixelSpec, settings: DecodeSettings) -> str:
    """The key of the store that was built of a manifest's files, from what the manifest says about them."""
    facts = zip(manifest.column("sha256"), manifest.column("reason"), strict=True)
    decoding = Decoding(spec, settings, reduce_jpeg=True, workers=1)
    return _key(decoding, [digest or reason for digest, reason in facts])


class PixelStore:
    """Pixels of every readable row of a manifest; open it with `open_or_build`.

    Attributes:
        spec: How the images are resized and cropped.
        key: Stores with equal keys have equal pixels.
        folder: Where it is; `PixelStore(folder, spec)` opens it again.
        facts: A table with sha256, bytes, width, height, mode, status, reason and note of each row.
    """

    def __init__(self, folder: Path, spec: PixelSpec) -> None:
        rows = parquet.read_table(folder / ROWS)
        self.spec = spec
        self.key = folder.name
        self.facts = rows.select([*_FACTS, "note"])
        self._rows = rows.select(_SCHEMA.names)
        self._heights = rows.column("stored_height").to_numpy().astype(np.int64)
        self._widths = rows.column("stored_width").to_numpy().astype(np.int64)
        self._ends = np.cumsum(self._heights * self._widths * 3)
        self._pixels = PiecewiseFile(folder / _PIXELS)
        self.folder = folder

    @classmethod
    def open_or_build(cls, manifest: Manifest, decoding: Decoding, folder: Path, bar: Bar | None = None) -> PixelStore:
        """Open the store of the images that a manifest's files contain now, or build it if it does not exist.

        Args:
            manifest: The images.
            decoding: How to decode, resize and crop them.
            folder: The cache.
            bar: Opens a progress bar with a title.

        Raises:
            DataError: No image can be read, one changes meanwhile, or one cannot be read and the settings are strict.
            WriteError: The disk is full, or the cache cannot be written.
        """
        bar, spec = bar or NullReporter().bar, decoding.spec
        memory = memory_of(manifest.root, folder)
        digests = digest_files(manifest.files(), memory, decoding.workers, bar("check images"))
        place = folder / "pixels" / _key(decoding, digests)
        store = cls._opened(place, spec)
        for _ in range(ATTEMPTS):
            if store is None:
                _build(place, manifest, digests, decoding, bar("decode images"))
                store = cls._opened(place, spec)
                limit_pixels(folder, place.name)
        if store is None:
            raise WriteError(place, "decoded pixels are removed before they can be used; run again")
        atomic.mark_used(place)
        if decoding.settings.strict:
            store._refuse_unreadable(manifest)
        return store

    @classmethod
    def exists(cls, manifest: Manifest, spec: PixelSpec, settings: DecodeSettings, folder: Path) -> bool:
        """Whether `open_or_build` has nothing to decode, as far as can be told without reading an image or pixels."""
        digests = known_digests(manifest.files(), memory_of(manifest.root, folder))
        if digests is None:
            return False
        key = _key(Decoding(spec, settings, workers=1), digests)
        return (folder / "pixels" / key / atomic.SEAL).exists()

    @classmethod
    def find(cls, key: str, spec: PixelSpec, folder: Path) -> PixelStore | None:
        """The store of a key in the cache, whether its files still exist or not; `None` where it is not there."""
        return cls._opened(folder / "pixels" / key, spec)

    @classmethod
    def _opened(cls, place: Path, spec: PixelSpec) -> PixelStore | None:
        """The store at a place, or `None` where it is absent, damaged or being removed."""
        if not atomic.is_intact(place):
            return None
        try:
            return cls(place, spec)
        except (OSError, ValueError, KeyError):
            # An intact store that cannot be read is made again.
            discard(place)
            return None

    def read(self, row: int) -> np.ndarray:
        """The resized image of a row, (h, w, 3) uint8, read-only; raises `UnreadableImage` for an unreadable one."""
        height, width = self._heights[row], self._widths[row]
        if not height:
            raise UnreadableImage(self.facts.column("reason")[row].as_py())
        pixels = np.empty((height, width, 3), np.uint8)
        self._pixels.fill(pixels, int(self._ends[row]) - pixels.nbytes)
        pixels.flags.writeable = False
        return pixels

    def decoded(self, row: int) -> DecodedFile:
        """What decoding the file of a readable row gave."""
        return DecodedRow(**self._rows.slice(row, 1).to_pylist()[0]), self.read(row)

    @property
    def sizes(self) -> np.ndarray:
        """(rows, 2) int64: height and width of each resized image, 0 for unreadable ones."""
        return np.stack([self._heights, self._widths], axis=1)

    def fill(self, array: np.ndarray, start: int) -> None:
        """Fill a uint8 array (N,) with the bytes from `start` on of all resized images, one after another."""
        self._pixels.fill(array, start)

    def plain(self, row: int) -> np.ndarray:
        """The plain view of a row: the centre crop, (size, size, 3) uint8."""
        return self.spec.crop(self.read(row))

    def describe(self, manifest: Manifest) -> Manifest:
        """The manifest with the facts about each file filled in."""
        return manifest.with_columns({name: self.facts.column(name) for name in _FACTS})

    def captures(self) -> list[Capture]:
        """When and with what each row's image was captured, as far as its EXIF data tell."""
        columns = (self._rows.column(name).to_pylist() for name in ("captured", "device"))
        return [Capture(time or "", device or "") for time, device in zip(*columns, strict=True)]

    def duplicates(self, workers: int, on_progress: OnProgress | None = None) -> list[NearDuplicate]:
        """Near-duplicates among the rows, computed with `workers` threads and then cached."""
        # It needs PyTorch, which decoding does not wait for.
        from thaw.data.duplicates import VERSION, NearDuplicate, near_duplicates

        file = self.folder.with_name(f"{self.key}.duplicates-{VERSION}.json")
        known = atomic.read_checked(file)
        if known is not None:
            return [NearDuplicate(*pair) for pair in known]
        found = near_duplicates(self.read, np.flatnonzero(self._heights).tolist(), workers, on_progress)
        with advising(LARGER_DISK):
            atomic.write_checked(file, [astuple(pair) for pair in found])
        return found

    def notes(self) -> tuple[str, ...]:
        """Remarks on the files with their counts, such as "first of 5 pages (3 images)"."""
        counts = Counter(self.facts.column("note").drop_null().to_pylist())
        return tuple(f"{note} ({count(images, 'image')})" for note, images in counts.most_common())

    def _refuse_unreadable(self, manifest: Manifest) -> None:
        """Raise `DataError` for the first unreadable row, if there is one."""
        for path, reason in self.describe(manifest).errors():
            raise _unreadable(manifest.root / path, reason)


def _build(
    place: Path, manifest: Manifest, digests: Sequence[str], decoding: Decoding, on_progress: OnProgress
) -> None:
    rows: list[DecodedRow] = []
    checksums: dict[Path, int] = {}
    with advising(LARGER_DISK), atomic.sealed_folder(place, checksums=checksums) as folder:
        try:
            with atomic.summing(folder / _PIXELS, checksums) as stream:
                for row in _written(stream, _decoded(place.parent, manifest, digests, decoding)):
                    if decoding.settings.strict and row.reason:
                        raise _unreadable(manifest.file(len(rows)), row.reason)
                    if (row.sha256 or row.reason) != digests[len(rows)]:
                        raise DataError(f"{manifest.file(len(rows))}: was changed while it was read; run this again")
                    rows.append(row)
                    on_progress(len(rows), len(manifest))
        except OSError as error:
            if not is_full(error):
                raise
            written = sum(row.stored_width * row.stored_height * 3 for row in rows)
            needed = size(round(written / max(1, len(rows)) * len(manifest)))
            sentence = f"the decoded pixels of {count(len(manifest), 'image')} need about {needed}"
            raise failure(place.parent, error, sentence) from error
        if all(row.status == "error" for row in rows):
            reason = f"{manifest.file(0)}: {rows[0].reason}" if rows else "there are none"
            raise DataError(f"{manifest.root}: none of {count(len(rows), 'image')} can be read ({reason})")
        pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=_SCHEMA), folder / ROWS)
        about = {"root": shown(manifest.root), "images": len(rows), "size": decoding.spec.size}
        (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _decoded(stores: Path, manifest: Manifest, digests: Sequence[str], decoding: Decoding) -> Iterator[DecodedFile]:
    """Every row, in order: of images that another store of these rules has from there, of all others from their files.

    So a data set that has grown is not decoded from its beginning.
    """
    known = _rows_of_others(stores, set(digests), decoding)
    files = [file for file, digest in zip(manifest.files(), digests, strict=True) if digest not in known]
    decoded = iter(current_reader().decoded(files, decoding) if files else ())
    for digest in digests:
        if digest in known:
            store, row = known[digest]
            yield store.decoded(row)
        else:
            yield next(decoded)


def _rows_of_others(stores: Path, wanted: set[str], decoding: Decoding) -> dict[str, tuple[PixelStore, int]]:
    """By its digest, the store and row of each wanted image that a store of the same rules has."""
    found: dict[str, tuple[PixelStore, int]] = {}
    for rows in stores.glob(f"*/{ROWS}"):
        try:
            facts = parquet.read_table(rows, ["sha256", "reason", "status"]).to_pydict()
            digests = [digest or reason for digest, reason in zip(facts["sha256"], facts["reason"], strict=True)]
            if _key(decoding, digests) != rows.parent.name or wanted.isdisjoint(digests):
                continue
            store = PixelStore(rows.parent, decoding.spec) if atomic.is_intact(rows.parent) else None
        except (OSError, ValueError, KeyError):
            # Damaged, or being removed.
            continue
        for row, (digest, status) in enumerate(zip(digests, facts["status"], strict=True)):
            if store and status == "ok" and digest in wanted:
                found.setdefault(digest, (store, row))
    return found


def _written(stream: BinaryIO, decoded: Iterable[DecodedFile]) -> Iterator[DecodedRow]:
    for row, pixels in decoded:
        if pixels is not None:
            stream.write(np.ascontiguousarray(pixels).data)
        yield row


def _unreadable(file: Path, reason: str) -> DataError:
    return DataError(f"{file}: cannot be read: {reason}; fix or remove it, or set decode.strict to false")
