"""Bundles on a model hub, through huggingface_hub: `hub:OWNER/NAME` is one, wherever a bundle is asked for.

`HF_ENDPOINT`, `HF_TOKEN`, proxies and offline mode are those of huggingface_hub. Nothing is asked of the network but by
such a name, and what was fetched once is used again without it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from thaw.errors import BundleError, first_line

PREFIX = "hub:"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(text: str) -> bool:
    """Whether a text names a bundle on the hub."""
    return text.startswith(PREFIX)


def fetch(name: str) -> Path:
    """The folder of a bundle `hub:OWNER/NAME` on this machine, fetched where it was not; raises `BundleError`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = _repository(name)
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(repository, endpoint=os.environ.get("HF_ENDPOINT")))
    except Exception as error:  # What is raised hangs on the HTTP library below huggingface_hub.
        raise BundleError(f"{name}: cannot be fetched: {first_line(error)}") from error


def push(bundle: Path, name: str, card: str, private: bool) -> str:
    """Upload every file of a bundle, and `card` as README.md; gives the address. Raises `BundleError`.

    The repository is made where there is none. All files come in one commit, so that nobody fetches half of them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repository = _repository(name)
    files = sorted(file for file in bundle.rglob("*") if file.is_file())
    operations: list[Any] = [CommitOperationAdd(file.relative_to(bundle).as_posix(), str(file)) for file in files]
    operations.append(CommitOperationAdd("README.md", card.encode("utf-8")))
    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload a Thaw bundle")
    except Exception as error:
        raise BundleError(f"{name}: cannot be pushed: {first_line(error)}; log in with `hf auth login`") from error
    return str(address)


def _repository(name: str) -> str:
    repository = name.removeprefix(PREFIX)
    if not _NAME.fullmatch(repository):
        raise BundleError(f"{name}: write a bundle on the hub as hub:OWNER/NAME")
    return repository
