"""Bundles on a model hub: `hub:OWNER/NAME` is accepted wherever a bundle is.

Endpoint, token, proxies and offline mode are those of huggingface_hub (`HF_ENDPOINT`, `HF_TOKEN`, ...). The network is
used only for such a name. The hub is asked for the newest revision each time; where it cannot be downloaded, the one
that was downloaded before is used, and a line says so.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thaw import atomic
from thaw.checksums import listed_sums
from thaw.errors import BundleError, first_line

PREFIX = "hub:"
TIMEOUT_SECONDS = 5.0
"""How long to wait for the hub to say which revision is the newest, where one was downloaded before."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(text: str) -> bool:
    """Whether a text is the name of a bundle on the hub."""
    return text.startswith(PREFIX)


def fetch(name: str) -> Path:
    """The local folder of the newest revision of `hub:OWNER/NAME`, downloaded if needed.

    Raises:
        BundleError: The name is malformed or the bundle cannot be downloaded.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    repository, endpoint = _repository(name), os.environ.get("HF_ENDPOINT")
    downloaded = _downloaded(repository)
    if downloaded and constants.HF_HUB_OFFLINE:
        return downloaded
    try:
        if downloaded is None:
            return Path(snapshot_download(repository, endpoint=endpoint))
        newest = HfApi(endpoint=endpoint).model_info(repository, timeout=TIMEOUT_SECONDS).sha
        if downloaded.name == newest:
            return downloaded
        # By its number, for which the revision that counts as downloaded stays the same until the new one is whole.
        updated = Path(snapshot_download(repository, revision=newest, endpoint=endpoint))
        atomic.write_text(updated.parent.parent / "refs" / "main", updated.name)
        return updated
    except Exception as error:  # The exception depends on the HTTP library that huggingface_hub uses.
        if downloaded is None:
            raise BundleError(f"{name}: cannot be downloaded: {first_line(error)}") from error
        print(
            f"thaw: {name}: using revision {downloaded.name[:12]}, which was downloaded before, because the newest one "
            f"cannot be: {first_line(error)}",
            file=sys.stderr,
        )
        return downloaded


def _downloaded(repository: str) -> Path | None:
    """The revision of a repository that was downloaded last, whole; no connection is opened."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        is_whole = all((folder / name).is_file() for name in listed_sums(folder))
    except (LocalEntryNotFoundError, OSError, UnicodeDecodeError):
        return None
    return folder if is_whole else None


def push(bundle: Path, files: Sequence[str], name: str, card: str, private: bool) -> str:
    """Upload the files of a bundle as one commit, so that nobody downloads half of it.

    Args:
        bundle: Folder of the bundle.
        files: Names of its files; what else is in the folder is not uploaded.
        name: `hub:OWNER/NAME` or `OWNER/NAME`; the repository is created if needed.
        card: Text of README.md.
        private: Whether a new repository is private.

    Returns:
        The URL of the repository.

    Raises:
        BundleError: The name is malformed or the upload fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repository = _repository(name)
    operations: list[Any] = [CommitOperationAdd(file, str(bundle / file)) for file in files]
    operations.append(CommitOperationAdd("README.md", card.encode("utf-8")))
    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload a Thaw bundle")
    except Exception as error:
        raise BundleError(f"{name}: cannot be uploaded: {first_line(error)}; log in with `hf auth login`") from error
    return str(address)


def _repository(name: str) -> str:
    repository = name.removeprefix(PREFIX)
    if not _NAME.fullmatch(repository):
        raise BundleError(f"{name}: not the name of a bundle on the hub; write it as hub:OWNER/NAME")
    return repository
