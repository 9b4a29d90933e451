"""Remote storage through fsspec: what is there, and how it is downloaded; every failure is one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from thaw.errors import DataError, PackageError, ThawError, first_line
from thaw.remote.address import address_of, host_of, local_path, shown, with_password, without_password
from thaw.writing import is_full

PARALLEL = 16
"""Requests at once: most of the time of a small file is waiting for an answer."""

_VERSIONS = (
    *("ETag", "etag", "md5Hash", "blob_id", "Content-MD5", "sha", "LastModified", "Last-Modified", "last_modified"),
    *("mtime", "modify", "modified", "modificationTime", "last_write_time", "updated", "created"),
)
"""What tells a changed file, in the order of how surely it does; each kind of storage has some of them."""

_IN_EXTRA = frozenset({"fsspec", "s3fs", "aiohttp"})
_REFUSED = re.compile(r"credential|accesskey|unauthorized|forbidden|access ?denied|signature|\b40[13]\b", re.IGNORECASE)
"""What the libraries of different storages say where a user may not read it; they have no exception in common."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on remote storage.

    Attributes:
        name: What the storage calls it.
        place: Its mirror.
        size: Bytes.
        version: Changes when the content does; empty where the storage does not tell.
    """

    name: str
    place: Path
    size: int
    version: str


@dataclass(frozen=True)
class Storage:
    """One address on remote storage, connected.

    Attributes:
        address: The address.
        name: What the storage calls it.
    """

    address: str
    name: str
    _system: Any

    @classmethod
    def at(cls, place: str | Path) -> Storage:
        """Connect; raises `PackageError` if a package is missing, and `DataError` if the protocol is unknown."""
        address = address_of(place)
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise PackageError(_missing(address, "fsspec")) from error
        protocol = address.partition(":")[0]
        if protocol not in fsspec.available_protocols():
            raise DataError(f"{address}: there is no protocol {protocol}; known are s3, gs, az, https, hf and others")
        try:
            with connection_explained(address):
                system, name = fsspec.url_to_fs(with_password(address))
                # Listings of earlier calls may be outdated.
                system.invalidate_cache()
        except ImportError as error:
            raise PackageError(_missing(address, getattr(error.__cause__, "name", None) or str(error))) from error
        return cls(address, name, system)

    def is_folder(self) -> bool:
        """Whether there is a folder at the address, not a file; raises `DataError` if there is neither."""
        with connection_explained(self.address):
            about = self._system.info(self.name)
        if about["type"] == "directory":
            return True
        if not self.address.startswith("http"):
            return False
        # A server of web pages does not tell: its folders are pages with links.
        if self.address == host_of(self.address) or about.get("mimetype") == "text/html":
            return True
        return "mimetype" not in about and "." not in self.address.rpartition("/")[2]

    def file(self) -> RemoteFile:
        """The file at the address."""
        with connection_explained(self.address):
            return _described(self.name, local_path(self.address), self._system.info(self.name))

    def files(self) -> list[RemoteFile]:
        """All files below the folder at the address, without hidden ones."""
        with connection_explained(self.address):
            return self._all_described(self._system.find(self.name, detail=True))

    def files_in(self, folder: str) -> list[RemoteFile]:
        """The files in one folder below the address; none if there is no such folder."""
        with connection_explained(self.address):
            try:
                listed = self._system.ls(f"{self.name}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []
            return self._all_described({found["name"]: found for found in listed if found["type"] != "directory"})

    def download(self, file: RemoteFile, to: Path) -> None:
        """Download a file; raises `DataError` if the connection is lost, or the file changes meanwhile."""
        with connection_explained(self.address):
            self._system.get_file(file.name, str(to))
        if to.stat().st_size != file.size:
            raise DataError(f"{shown(file.place)}: changed while it was downloaded; run again")

    def _all_described(self, found: Mapping[str, Any]) -> list[RemoteFile]:
        """Files by what the storage calls them, each with its size and version, which some listings lack."""
        places = dict(self._places(found))
        unknown = [name for name in places if found[name].get("size") is None]
        with ThreadPoolExecutor(PARALLEL) as pool:
            asked = dict(zip(unknown, pool.map(self._system.info, unknown), strict=True))
        return [_described(name, place, asked.get(name, found[name])) for name, place in places.items()]

    def _places(self, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
        is_web = self.address.startswith("http")
        for name in names:
            below = name.removeprefix(self.name).lstrip("/")
            # Storage without folders marks them by files of their name; web pages have links to sort themselves.
            if not below or below.endswith("/") or (is_web and "?" in below):
                continue
            below = unquote(below) if is_web else below
            if not any(part.startswith(".") for part in below.split("/")):
                yield name, local_path(f"{self.address}/{below}")


@contextmanager
def connection_explained(address: str) -> Iterator[None]:
    """Say in one sentence why an address cannot be read; raises `DataError`. A full disk is not about an address."""
    try:
        yield
    except (ThawError, ImportError):
        raise
    except FileNotFoundError as error:
        # That is also what the file system of web pages says where the server is not reached, or wants a password.
        cause = error.__cause__
        is_other = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        if isinstance(cause, Exception) and (is_other or _REFUSED.search(str(cause))):
            raise DataError(_unreadable(address, cause)) from error
        raise DataError(f"{address}: there is no such bucket, folder or file") from error
    except OSError as error:
        if is_full(error):
            raise
        raise DataError(_unreadable(address, error)) from error
    except Exception as error:  # The exception depends on the library that fsspec uses.
        raise DataError(_unreadable(address, error)) from error


def _described(name: str, place: Path, about: Mapping[str, Any]) -> RemoteFile:
    if about.get("size") is None:
        raise DataError(
            f"{shown(place)}: the server does not tell the size of this file, which is needed to see it change"
        )
    version = next((str(about[key]) for key in _VERSIONS if about.get(key) is not None), "")
    return RemoteFile(name, place, int(about["size"]), version)


def _unreadable(address: str, error: Exception) -> str:
    said = f": {without_password(first_line(error))}" if str(error).strip() else ""
    reason = f"{type(error).__name__}{said}"
    if isinstance(error, PermissionError) or _REFUSED.search(reason):
        return f"{address}: access is refused ({reason}); check the credentials of this storage in the environment"
    return f"{address}: cannot be read ({reason}); what was downloaded is kept, re-run to resume"


def _missing(address: str, package: str) -> str:
    needed = '"thaw-vision[remote]"' if package in _IN_EXTRA else package
    return f"{address}: needs {package}: pip install {needed}"
