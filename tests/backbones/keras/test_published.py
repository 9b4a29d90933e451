"""The table of published weights is that of the installed Keras; they are downloaded once, checked, into its cache."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from thaw.backbones.keras import is_application, published
from thaw.backbones.keras.preprocessing import NORMALISATIONS
from thaw.backbones.keras.published import (
    PublishedNetwork,
    cached_file,
    fetch,
    fetch_to,
    look_up,
    published_networks,
)
from thaw.cli import app
from thaw.errors import BackboneError, WeightsError, WriteError
from thaw.keras_runtime import keras

NETWORKS = pytest.mark.parametrize("network", published_networks(), ids=lambda network: network.name)

# Keras converts its own variables to arrays in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _module(network: PublishedNetwork) -> Any:
    return inspect.getmodule(getattr(keras.applications, network.name))


def _functions(network: PublishedNetwork) -> Any:
    """The public module with `preprocess_input` of a network; `resnet` and `resnet_v2` share a source file."""
    name = {"ResNet V2": "resnet_v2"}.get(network.family)
    return getattr(keras.applications, name) if name else _module(network)


def test_names_and_files_are_unique() -> None:
    networks = published_networks()
    assert len(networks) == 39
    for attribute in ("name", "file_name", "address"):
        assert len({getattr(network, attribute) for network in networks}) == len(networks)
    assert [network.name for network in networks if not network.digest] == ["MobileNet", "MobileNetV2"]
    assert all(network.address.startswith("https://storage.googleapis.com/") for network in networks)


def test_what_keras_does_not_build_on_pytorch_is_left_out() -> None:
    with pytest.raises(BackboneError):
        look_up("keras:NASNetMobile")
    with pytest.raises(ValueError, match="not available with the torch backend"):
        keras.applications.NASNetMobile(weights=None)


@NETWORKS
def test_the_hash_is_in_the_source_of_keras(network: PublishedNetwork) -> None:
    files = [inspect.getsource(keras.src.applications.resnet), inspect.getsource(_module(network))]
    assert any(network.digest in text for text in files)


@NETWORKS
def test_the_preprocessing_is_that_of_keras(network: PublishedNetwork) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 7, 5, 3)).astype(np.float32)
    expected = _functions(network).preprocess_input(pixels.copy())
    given = NORMALISATIONS[network.mode]
    own = (pixels / 255 - np.array(given.mean, np.float32)) / np.array(given.std, np.float32)
    own = own[..., ::-1] if network.mode == "caffe" else own
    # Of what is in units of 0..255 the same fraction.
    unit = max(1.0, float(np.abs(expected).max()))
    assert float(np.abs(own - expected).max()) < 1e-5 * unit


@NETWORKS
@pytest.mark.slow
def test_address_hash_size_and_parameters_are_those_that_keras_uses(
    network: PublishedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def get_file(fname: str, origin: str, **given: Any) -> str:
        asked.update(given, fname=fname, origin=origin)
        raise InterruptedError

    build = getattr(keras.applications, network.name)
    size = network.size
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with torch.device("meta"), keras.device("meta"):
        with pytest.raises(InterruptedError):
            build(weights="imagenet", include_top=False, input_shape=(size, size, 3))
        model = build(weights=None, include_top=False, input_shape=(size, size, 3))
        # With a classifier Keras refuses any size but its default.
        whole = build(weights=None)
    assert asked["fname"] == network.file_name
    assert asked["origin"] == network.address
    assert asked.get("file_hash") in (network.digest, None)
    assert asked["cache_subdir"] == "models"
    assert model.count_params() == round(network.parameters_m * 1e6)
    # MobileNetV3 takes any size; its weights are named after theirs.
    assert whole.input_shape[1:3] in ((size, size), (None, None))
    assert None not in whole.input_shape[1:3] or f"_{size}_" in network.file_name


@pytest.mark.parametrize("name", ["keras:MobileNetV2", "keras:mobilenet_v2", "KERAS:MobileNet-v2", "mobilenetv2"])
def test_spellings(name: str) -> None:
    assert look_up(name).name == "MobileNetV2"


def test_every_name_leads_to_its_network() -> None:
    assert all(look_up(network.entry.name) is network for network in published_networks())
    assert is_application("keras:Xception")
    assert not is_application("xception")


def test_a_wrong_name_is_an_error_with_suggestions() -> None:
    with pytest.raises(BackboneError, match=r"'keras:resnet51': .*did you mean keras:ResNet50 or"):
        look_up("keras:resnet51")
    with pytest.raises(BackboneError, match="`thaw models list keras` lists"):
        look_up("keras:zzz")


class Server(SimpleHTTPRequestHandler):
    """Serves files without a log; of `short.h5` it announces more than it sends."""

    def end_headers(self) -> None:
        self.close_connection = True
        super().end_headers()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and self.path == "/short.h5":
            value = str(int(value) + 1)
        super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublishedNetwork]:
    """A network whose weights a server on this machine has, and an empty cache of Keras."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("weights.h5", "short.h5"):
        (folder / name).write_bytes(b"weights")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield replace(
            published_networks()[0],
            address=f"http://127.0.0.1:{running.server_port}/weights.h5",
            digest=hashlib.md5(b"weights", usedforsecurity=False).hexdigest(),
        )
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("algorithm", ["md5", "sha256", ""])
def test_weights_are_downloaded_once_into_the_cache_of_keras(
    algorithm: str, network: PublishedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.new(algorithm, b"weights", usedforsecurity=False).hexdigest() if algorithm else ""
    network = replace(network, digest=digest)
    assert cached_file(network) is None
    file = fetch(network)
    assert file == tmp_path / "home/models" / network.file_name
    assert file.read_bytes() == b"weights"
    assert [found.name for found in file.parent.iterdir()] == [network.file_name]
    monkeypatch.setattr("socket.socket.connect", None)
    assert fetch(network) == cached_file(network) == file


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": "0" * 32}, "is not the file that Keras published; nothing was kept"),
        ({"digest": "", "address": "short.h5"}, "the connection ended after 7 of 8 bytes"),
        ({"address": "absent.h5"}, r"not on this machine and 127\.0\.0\.1 refuses access \(HTTP Error 404"),
    ],
)
def test_what_cannot_be_downloaded_leaves_nothing(
    change: dict[str, str], reason: str, network: PublishedNetwork, tmp_path: Path
) -> None:
    if "address" in change:
        change = {**change, "address": network.address.replace("weights.h5", change["address"])}
    with pytest.raises(WeightsError, match=reason):
        fetch(replace(network, **change))
    assert not any(found.is_file() for found in (tmp_path / "home").rglob("*"))


def test_a_cached_file_with_other_content_is_an_error_and_stays(network: PublishedNetwork, tmp_path: Path) -> None:
    file = tmp_path / "home/models" / network.file_name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the file that Keras published; remove it"):
        fetch(network)
    assert file.read_bytes() == b"other"


def test_offline_mode_is_respected(network: PublishedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match=r"weights keras:ResNet50 are not .* HF_HUB_OFFLINE forbids downloads; download"
    ):
        fetch(network)


def test_weights_for_another_machine(network: PublishedNetwork, tmp_path: Path) -> None:
    digest = fetch_to(network, tmp_path / "resnet.h5")
    assert (tmp_path / "resnet.h5").read_bytes() == b"weights"
    assert digest == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(WriteError, match="already exists"):
        fetch_to(network, tmp_path / "resnet.h5")
    with pytest.raises(WriteError, match="give the file that suffix"):
        fetch_to(network, tmp_path / "resnet.safetensors")


def test_the_commands(network: PublishedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "published_networks", lambda: (network,))
    file = tmp_path / "resnet.h5"
    fetched = CliRunner().invoke(app, ["models", "fetch", "keras:resnet50", "--to", str(file)])
    assert fetched.exit_code == 0, fetched.output
    assert f"licence {network.license}" in fetched.output
    assert "thaw train IMAGES --backbone keras:resnet50 --weights resnet.h5" in fetched.output
    listed = CliRunner().invoke(app, ["models", "list", "keras", "resnet50"])
    assert listed.exit_code == 0, listed.output
    row = next(line for line in listed.output.splitlines() if "keras:ResNet50 " in line)
    assert "Keras ResNet" in row
    assert row.split()[-1] == "yes"
