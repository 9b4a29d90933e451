"""Bundles on a model hub: `hub:OWNER/NAME` is accepted wherever a bundle is.

Endpoint, token, proxies and offline mode are those of huggingface_hub (`HF_ENDPOINT`, `HF_TOKEN`, ...). The network is
used only for such a name, and a bundle that was downloaded once is used again offline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thaw.errors import BundleError, first_line

PREFIX = "hub:"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(text: str) -> bool:
    """Whether a text is the name of a bundle on the hub."""
    return text.startswith(PREFIX)


def fetch(name: str) -> Path:
    """The local folder of the bundle `hub:OWNER/NAME`, downloaded if needed.

    Raises:
        BundleError: The name is malformed or the bundle cannot be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = _repository(name)
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(repository, endpoint=os.environ.get("HF_ENDPOINT")))
    except Exception as error:  # The exception depends on the HTTP library that huggingface_hub uses.
        raise BundleError(f"{name}: cannot be downloaded: {first_line(error)}") from error


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
