"""SHA-256 of files, and lists of them in the format of `sha256sum`."""

from __future__ import annotations

import hashlib
from pathlib import Path

SUMS = "SHA256SUMS"
"""The file of a folder that lists the SHA-256 of all others."""


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def listed_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that SHA256SUMS lists, by its name; raises `OSError` or `UnicodeDecodeError`."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
