"""Published weights: from the cache of this machine, or downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import torch
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from thaw.backbones import starter
from thaw.backbones.catalogue import look_up
from thaw.errors import ThawError, WeightsError
from thaw.writing import FULL

TIMEOUT_SECONDS = 5.0
"""How long to wait for a server to answer at all."""

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def is_cached(name: str) -> bool:
    """Whether the published weights of a network of the catalogue are on this machine; never opens a connection.

    Raises:
        BackboneError: The catalogue does not list the name.
    """
    source = look_up(name).source
    return source == starter.SOURCE or (bool(source) and _cached(source) is not None)


def is_offline() -> bool:
    """Whether the environment forbids downloads: `HF_HUB_OFFLINE`, or `TRANSFORMERS_OFFLINE`."""
    return bool(constants.HF_HUB_OFFLINE)


def fetch(source: str) -> Path:
    """The weights file of a Hub repository or URL: from this machine's cache, or downloaded.

    A cached file is used without opening a connection. Mirror, proxies and offline mode are those of huggingface_hub
    (`HF_ENDPOINT`, `HTTPS_PROXY`, `HF_HUB_OFFLINE`).

    Raises:
        WeightsError: The weights cannot be downloaded; within seconds if the server does not respond.
    """
    cached = _cached(source)
    if cached is not None:
        return cached
    address = source if "://" in source else hf_hub_url(source, _HUB_FILES[0])
    with downloading(source, address):
        return _download(source)


@contextmanager
def downloading(source: str, address: str) -> Iterator[None]:
    """Say in one sentence why weights could not be downloaded, and what else helps.

    Args:
        source: What the weights are called.
        address: Their URL.

    Raises:
        WeightsError: The environment forbids downloads, or the block fails.
    """
    if is_offline():
        raise WeightsError(_unreachable(source, address, "HF_HUB_OFFLINE forbids downloads"))
    try:
        yield
    except ThawError:
        raise
    except (HfHubHTTPError, HTTPError) as error:
        if isinstance(error, HTTPError):
            error.close()
        reason = f"{urlsplit(address).hostname} refuses access ({str(error).splitlines()[0]})"
        raise WeightsError(_unreachable(source, address, reason)) from error
    # The exception depends on the HTTP library that huggingface_hub uses, which differs between its versions.
    except Exception as error:
        reason = f"{urlsplit(address).hostname} cannot be reached ({type(error).__name__})"
        if isinstance(error, OSError) and error.filename and error.strerror:
            reason = f"{error.filename} cannot be written ({error.strerror})"
        if isinstance(error, OSError) and error.errno in FULL:
            reason = f"cannot be downloaded, because {FULL[error.errno]}"
        raise WeightsError(_unreachable(source, address, reason)) from error


def check_answers(address: str) -> None:
    """Open a URL and close it again; raises an error of the connection within `TIMEOUT_SECONDS`."""
    _within_timeout(lambda: urlopen(address, timeout=TIMEOUT_SECONDS).close())


def _cached(source: str) -> Path | None:
    if "://" in source:
        file = _file_of_address(source)
        return file if file.is_file() else None
    for name in _HUB_FILES:
        found = try_to_load_from_cache(source, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(source: str) -> Path:
    # Checked first: torch waits for a silent server without a timeout, and `hf_hub_download` retries for 25 s.
    if "://" in source:
        file = _file_of_address(source)
        file.parent.mkdir(parents=True, exist_ok=True)
        check_answers(source)
        torch.hub.download_url_to_file(source, str(file), hash_prefix=_hash_in(file), progress=False)
        return file
    for name in _HUB_FILES:
        try:
            _within_timeout(partial(get_hf_file_metadata, hf_hub_url(source, name), timeout=TIMEOUT_SECONDS))
        except EntryNotFoundError:
            continue
        return Path(hf_hub_download(source, name))
    raise WeightsError(f"{source}: the repository contains neither {' nor '.join(_HUB_FILES)}")


def _within_timeout(request: Callable[[], object]) -> None:
    """Wait for a request; raises `TimeoutError` also where looking up the name takes long, which has no timeout."""
    answer: Future[object] = Future()

    def ask() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    answer.result(TIMEOUT_SECONDS)


def _unreachable(source: str, address: str, reason: str) -> str:
    return (
        f"the weights {source} are not on this machine and {reason}; download {address} elsewhere, copy it here "
        f"and pass --weights FILE, or use --backbone {starter.NAME}, which needs no network"
    )


def _file_of_address(address: str) -> Path:
    """Where torch, and therefore timm, stores downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name


def _hash_in(file: Path) -> str | None:
    """The first digits of the SHA-256, which PyTorch's convention puts into file names: `name-0123abcd.pth`."""
    match = torch.hub.HASH_REGEX.search(file.name)
    return match.group(1) if match else None
