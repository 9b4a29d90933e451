"""Files on remote storage (s3://, gs://, https://, ...): mirrored in the cache, and read from there like local ones.

`address` tells what is remote and where its mirror is, `storage` lists and downloads through fsspec, `mirror` keeps the
mirror equal to the storage. Nothing is opened unless a remote address was given.
"""

from __future__ import annotations

from thaw.remote.address import address_of, host_of, is_remote, local_path, shown, without_password
from thaw.remote.mirror import SILENT, mirrored, mirrored_files

__all__ = [
    "SILENT",
    "address_of",
    "host_of",
    "is_remote",
    "local_path",
    "mirrored",
    "mirrored_files",
    "shown",
    "without_password",
]
