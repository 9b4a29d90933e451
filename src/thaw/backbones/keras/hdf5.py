"""HDF5 files as data: only what lies in the file itself, and never much more than it holds.

HDF5 can refer to other files (external links, external storage, virtual datasets) and to objects of Python, and can
claim arrays far larger than the file. Keras writes none of that, so each is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from thaw.errors import PackageError, WeightsError, first_line
from thaw.formats import size as size_text

MAX_EXPANSION = 20
"""How many times larger than stored an array or a member of an archive may be; weights hardly shrink at all."""

ALWAYS_ALLOWED = 1 << 24
"""Bytes that may be stored in any number of bytes: a small array of zeros shrinks a thousandfold."""

_MAX_ATTRIBUTE = 1 << 26
# Deflate, shuffle, checksum and LZF: what h5py and h5repack use. Others are loaded as plugins, which is code.
_FILTERS = frozenset({1, 2, 3, 32000})
_NUMBERS = "fiub"
_PROBLEMS = (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError)


class _Source:
    """What is being read: its name in messages, and how many bytes may still be read from it."""

    def __init__(self, where: str, size: int) -> None:
        self.where = where
        self.left = ALWAYS_ALLOWED + MAX_EXPANSION * size

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an error of HDF5 into one sentence."""
        try:
            yield
        except _PROBLEMS as error:
            raise WeightsError(f"{self.where}: cannot be read as HDF5, it is damaged ({first_line(error)})") from error

    def refused(self, name: str, reason: str) -> WeightsError:
        """The error for something that no file of weights contains."""
        return WeightsError(f"{self.where}: {name} {reason}, which Thaw does not read; save the weights again")


class Dataset:
    """An array of a file that has been checked and not yet been read."""

    def __init__(self, dataset: Any, source: _Source) -> None:
        self._dataset, self._source = dataset, source
        with source.explained():
            self.shape = tuple(int(length) for length in dataset.shape or ())
            self._check()

    def read(self) -> np.ndarray:
        """The array in the byte order of this machine; bfloat16 becomes float32."""
        with self._source.explained():
            stored = self._dataset.dtype
            self._source.left -= self._dataset.size * stored.itemsize
            if self._source.left < 0:
                raise WeightsError(f"{self._source.where}: contains the same weights many times; it is damaged")
            array = np.asarray(self._dataset[()])
        if stored.kind == "V":
            return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        # Not `ascontiguousarray`, which gives a single number an axis.
        return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")

    def _check(self) -> None:
        dataset, source, name = self._dataset, self._source, self._dataset.name
        if dataset.external:
            raise source.refused(name, "keeps its numbers in another file")
        if dataset.is_virtual:
            raise source.refused(name, "is assembled from other files")
        is_bfloat16 = dataset.dtype == np.dtype("V2") and _is_text(dataset.attrs.get("dtype"), "bfloat16")
        if dataset.dtype.kind not in _NUMBERS and not is_bfloat16:
            raise source.refused(name, f"does not consist of numbers but of {dataset.dtype}")
        properties = dataset.id.get_create_plist()
        filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
        if filters - _FILTERS:
            raise source.refused(name, f"is compressed by filter {min(filters - _FILTERS)}")
        stored, item = dataset.id.get_storage_size(), dataset.dtype.itemsize
        for shape in (self.shape, dataset.chunks or ()):
            # Integers of Python, because a product of claimed lengths may not fit any other.
            claimed = item * int(np.prod(np.array(shape, dtype=object))) if shape else item
            if claimed > min(max(ALWAYS_ALLOWED, MAX_EXPANSION * stored), source.left):
                raise WeightsError(
                    f"{source.where}: {name} claims {size_text(claimed)}, of which the file holds "
                    f"{size_text(stored)}; it is damaged"
                )


class Group:
    """A group of a file; only what lies in the file itself is found in it."""

    def __init__(self, group: Any, source: _Source) -> None:
        self._group, self._source = group, source

    def names(self) -> list[str]:
        """Names of everything in the group."""
        with self._source.explained():
            return list(self._group)

    def group(self, path: Sequence[str]) -> Group | None:
        """The group at a path of names, if there is one."""
        import h5py

        found = self._find(path)
        return Group(found, self._source) if isinstance(found, h5py.Group) else None

    def dataset(self, path: Sequence[str]) -> Dataset | None:
        """The array at a path of names, if there is one."""
        import h5py

        found = self._find(path)
        return Dataset(found, self._source) if isinstance(found, h5py.Dataset) else None

    def text(self, attribute: str) -> str | None:
        """An attribute that is one text."""
        found = self._attribute(attribute)
        return found[0] if found else None

    def texts(self, attribute: str) -> list[str] | None:
        """An attribute that is a list of texts; Keras divides a long one among `name0`, `name1`, …"""
        whole = self._attribute(attribute)
        if whole is not None:
            return whole
        parts: list[str] = []
        number = 0
        while (part := self._attribute(f"{attribute}{number}")) is not None:
            parts, number = parts + part, number + 1
        return parts if number else None

    def _find(self, path: Sequence[str]) -> Any:
        import h5py

        found = self._group
        for name in path:
            if "/" in name or name in ("", ".") or not isinstance(found, h5py.Group):
                return None
            with self._source.explained():
                link = found.get(name, getlink=True)
                if link is not None and not isinstance(link, h5py.HardLink):
                    raise self._source.refused(f"{found.name.rstrip('/')}/{name}", "is a link to another place")
                found = None if link is None else found[name]
        return found

    def _attribute(self, name: str) -> list[str] | None:
        import h5py

        with self._source.explained():
            if name not in self._group.attrs:
                return None
            attribute = self._group.attrs.get_id(name)
            count = int(np.prod(np.array(attribute.shape or (), dtype=object)))
            if count * attribute.dtype.itemsize > _MAX_ATTRIBUTE:
                raise WeightsError(f"{self._source.where}: attribute {name} is too large; the file is damaged")
            if not count or attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
                return []
            if h5py.check_string_dtype(attribute.dtype) is None:
                raise self._source.refused(f"attribute {name}", "is no text")
            values = np.atleast_1d(self._group.attrs[name]).ravel()
            return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


@contextmanager
def open_hdf5(stream: BinaryIO, size: int, where: str) -> Iterator[Group]:
    """The root group of an HDF5 file.

    Args:
        stream: The file, or a member of an archive in memory.
        size: Its size in bytes, which limits how much is read.
        where: What messages call it.

    Raises:
        PackageError: h5py is not installed.
        WeightsError: It is damaged, or contains what no file of weights does; also from what is read later.
    """
    h5py = import_h5py()
    source = _Source(where, size)
    with source.explained():
        opened = h5py.File(stream, "r")
    try:
        yield Group(opened, source)
    finally:
        opened.close()


def import_h5py() -> Any:
    """h5py; raises `PackageError` with the command that installs it."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise PackageError(f'files of Keras need {error.name}: pip install "thaw-vision[keras]"') from error
    return h5py


def _is_text(value: Any, text: str) -> bool:
    return bool(value == text or value == text.encode())
