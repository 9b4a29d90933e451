"""Published ImageNet weights of `keras.applications`: facts about each, and where they are.

They are kept where Keras itself keeps them, so that each finds what the other has downloaded.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast
from urllib.request import urlopen

from thaw import atomic
from thaw.backbones.catalogue import Entry, without_separators
from thaw.backbones.download import TIMEOUT_SECONDS, check_answers, downloading
from thaw.backbones.keras import PREFIX, is_application
from thaw.backbones.keras.preprocessing import Mode
from thaw.checksums import sha256_of
from thaw.errors import BackboneError, WeightsError, WriteError
from thaw.writing import check_has_folder, check_new, explained


@dataclass(frozen=True)
class PublishedNetwork:
    """One network of `keras.applications`, without its classifier.

    Attributes:
        name: Keras's name of the function that builds it, such as `ResNet50`.
        family: Its family.
        parameters_m: Millions of parameters.
        gmacs: 10^9 multiply-adds for one image of `size`.
        size: Side of the square input in pixels.
        top1: ImageNet accuracy in percent as keras.io lists it.
        mode: How it preprocesses.
        license: Of the weights.
        address: URL of the weights.
        file_name: Name of the weights in Keras's cache.
        digest: MD5 or SHA-256 of the weights as Keras lists it; empty for the two networks for which it lists none.
    """

    name: str
    family: str
    parameters_m: float
    gmacs: float
    size: int
    top1: float
    mode: Mode
    license: str
    address: str
    file_name: str
    digest: str

    @property
    def entry(self) -> Entry:
        """Its row in the list of networks."""
        return Entry(
            name=f"{PREFIX}{self.name}",
            family=f"Keras {self.family}",
            parameters_m=self.parameters_m,
            gmacs=self.gmacs,
            input_size=self.size,
            top1=self.top1,
            source=self.file_name,
        )


@cache
def published_networks() -> tuple[PublishedNetwork, ...]:
    """All networks with published weights that Keras builds on PyTorch, by family and size."""
    text = files("thaw.backbones.keras").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedNetwork(
            name=row["name"],
            family=row["family"],
            parameters_m=float(row["parameters_m"]),
            gmacs=float(row["gmacs"]),
            size=int(row["size"]),
            top1=float(row["top1"]),
            mode=cast(Mode, row["mode"]),
            license=row["license"],
            address=row["address"],
            file_name=row["file_name"],
            digest=row["digest"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def look_up(name: str) -> PublishedNetwork:
    """The network of a name such as `keras:MobileNetV2`, `keras:mobilenet_v2` or `MobileNetV2`.

    Raises:
        BackboneError: There is none; it suggests similar names.
    """
    known = {without_separators(network.name): network for network in published_networks()}
    wanted = without_separators(name[len(PREFIX) :] if is_application(name) else name)
    if wanted in known:
        return known[wanted]
    near = [f"{PREFIX}{known[found].name}" for found in difflib.get_close_matches(wanted, known, n=3)]
    hint = f"did you mean {' or '.join(near)}?" if near else "`thaw models list keras` lists those of Keras"
    raise BackboneError(f"backbone {name!r}: Keras publishes no such network; {hint}")


def cached_file(network: PublishedNetwork) -> Path | None:
    """The weights in Keras's cache, if they are there; never opens a connection."""
    file = _cache_folder() / network.file_name
    return file if file.is_file() else None


def fetch(network: PublishedNetwork) -> Path:
    """The weights of a network: from Keras's cache on this machine, or downloaded into it.

    A cached file is used without opening a connection, but its hash is checked.

    Raises:
        WeightsError: The weights cannot be downloaded, or are not those that were published.
        WriteError: Keras's cache cannot be written.
    """
    cached = cached_file(network)
    if cached is not None:
        with cached.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: _hash(network)).hexdigest()
        if network.digest not in ("", digest):
            raise WeightsError(f"{cached}: is not the file that Keras published; remove it, and it is downloaded again")
        return cached
    file = _cache_folder() / network.file_name
    with downloading(f"{PREFIX}{network.name}", network.address):
        check_answers(network.address)
        with explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(file) as path:
            _download(network, path)
    return file


def fetch_to(network: PublishedNetwork, file: Path) -> str:
    """Write the weights of a network to a new .h5 file, for use on another machine.

    Returns:
        The SHA-256 of the file.

    Raises:
        WeightsError: The weights cannot be downloaded.
        WriteError: The file exists, has no folder or another suffix, or cannot be written.
    """
    if file.suffix.lower() != ".h5":
        raise WriteError(file, "weights of Keras are written as .h5; give the file that suffix")
    check_has_folder(file)
    check_new(file)
    published = fetch(network)
    with atomic.new_file(file) as path:
        shutil.copyfile(published, path)
    return sha256_of(file)


def _download(network: PublishedNetwork, path: Path) -> None:
    digest, length = _hash(network), 0
    with urlopen(network.address, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as stream:
        while chunk := response.read(1 << 20):
            stream.write(chunk)
            digest.update(chunk)
            length += len(chunk)
        announced = response.headers.get("Content-Length")
    if announced is not None and length != int(announced):
        raise WeightsError(f"{network.address}: the connection ended after {length:,} of {announced} bytes; try again")
    if network.digest not in ("", digest.hexdigest()):
        raise WeightsError(f"{network.address}: is not the file that Keras published; nothing was kept of it")


def _hash(network: PublishedNetwork) -> hashlib._Hash:
    """The hash that Keras lists for the weights of a network, of nothing yet."""
    return hashlib.sha256() if len(network.digest) == 64 else hashlib.md5(usedforsecurity=False)


def _cache_folder() -> Path:
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"
