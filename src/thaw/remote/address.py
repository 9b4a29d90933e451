"""Addresses on remote storage, and the places of their mirrors in the cache: one follows from the other.

The mirror of scheme://HOST/some/file is CACHE/remote/scheme-HOST/files/some/file, where HOST is a bucket or a server.
The password in an address such as ftp://user:password@HOST is in no form of it but that of `with_password`: it is kept
in memory, and never written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from thaw.cache import MIRRORS, cache_folder
from thaw.errors import DataError

# Two letters at least: C:/images is a folder of Windows. `Path` makes one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.]+):/+(.*)", re.DOTALL)
_HAS_NO_HOST = frozenset({"file", "local"})
_PASSWORD = re.compile(r"(?<!\bgit)(?<!\bgithub)(:/+[^:/\s]*):[^/\s]*@", re.IGNORECASE)
"""Not in what names a version of a repository, as github://owner:repository@version."""
_FILES = "files"
_NOT_ON_WINDOWS = re.compile(r'[\\:*?"<>|\x00-\x1f]|[. ]$')
r"""In no name of a file there; `..\a` and `C:` would lead out of the mirror."""

_hosts_with_password: dict[str, str] = {}
"""The servers whose passwords this process was given, by their names without it."""


def is_remote(place: str | Path) -> bool:
    """Whether a place is an address such as s3://bucket/images; also one that was made a `Path`."""
    return _ADDRESS.match(_text(place)) is not None


def address_of(place: str | Path) -> str:
    """The address in its usual form, without password and slash at its end; raises `DataError` if it is none."""
    match = _ADDRESS.match(_text(place))
    if match is None:
        raise DataError(f"{place}: is not an address such as s3://bucket/images")
    scheme, rest = match[1].lower(), match[2].rstrip("/")
    address = f"{scheme}:///{rest}" if scheme in _HAS_NO_HOST else f"{scheme}://{rest}"
    given, _ = _parts(address)
    host = without_password(given)
    if host != given:
        _hosts_with_password[host] = given
    return address.replace(given, host, 1)


def with_password(address: str) -> str:
    """An address of `address_of` with the password that this process was given for its server, if any; for fsspec."""
    host, _ = _parts(address)
    return address.replace(host, _hosts_with_password.get(host, host), 1)


def without_password(text: str) -> str:
    """A text in which no address has a password."""
    return _PASSWORD.sub(r"\1@", text)


def local_path(place: str | Path) -> Path:
    """Where the mirror of a file or folder is, or would be; raises `DataError` for a name that cannot be a path."""
    host, path = _parts(address_of(place))
    names = path.split("/") if path else []
    if not all(map(is_file_name, names)):
        raise DataError(f"{address_of(place)}: has a name that cannot be the path of a file; rename it")
    return mirror_folder(host) / _FILES / Path(*names)


def is_file_name(name: str, separator: str = os.sep) -> bool:
    """Whether a name on a storage can be one of a file, on a system that separates folders by `separator`."""
    if name in ("", ".", "..") or "\0" in name:
        return False
    return separator == "/" or not _NOT_ON_WINDOWS.search(name)


def mirror_folder(host: str) -> Path:
    """The entry of the cache for a bucket or server, such as s3://bucket."""
    scheme, _, name = host.partition("://")
    return _mirrors() / f"{scheme}-{quote(name, safe='')}"


def host_of(place: str | Path) -> str:
    """The bucket or server of an address, such as s3://bucket."""
    return _parts(address_of(place))[0]


def shown(text: str | Path) -> str:
    """A path or a text for the user, in which every path of a mirror is the address that it mirrors."""
    if isinstance(text, Path) and is_remote(text):
        return address_of(text)
    if isinstance(text, Path):
        found = shown(str(text))
        return found.replace(os.sep, "/") if is_remote(found) else found
    # The cache is not looked for in texts that cannot name a mirror.
    if f"{os.sep}{MIRRORS}{os.sep}" not in text:
        return text
    separator = re.escape(os.sep)
    pattern = rf"{re.escape(str(_mirrors()))}{separator}([A-Za-z0-9+.]+)-([^{separator}]*){separator}{_FILES}"
    return re.sub(pattern, lambda match: f"{match[1]}://{unquote(match[2])}", text)


def _text(place: str | Path) -> str:
    return place.as_posix() if isinstance(place, Path) else place


def _parts(address: str) -> tuple[str, str]:
    """The bucket or server, and the path on it."""
    scheme, _, rest = address.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", path


def _mirrors() -> Path:
    return cache_folder().resolve() / MIRRORS
