from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file as read_tensors
from safetensors.torch import save_file

from thaw.backbones import download
from thaw.backbones.download import fetch, is_cached
from thaw.backbones.timm_backbone import build
from thaw.backbones.weights import LoadedWeights, load_file
from thaw.errors import BackboneError, WeightsError
from thaw.recipe import PreprocessingSettings

TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """A small network with its classifier."""
    torch.manual_seed(7)
    return timm.create_model(TINY).state_dict()


def saved(folder: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> str:
    save_file(tensors, folder / "w.safetensors", metadata=metadata or None)
    return str(folder / "w.safetensors")


def headless(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}


def holds(backbone: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    state = backbone.network.state_dict()  # type: ignore[union-attr, operator]
    return state.keys() == tensors.keys() and all(torch.equal(state[name], tensors[name]) for name in state)


def test_a_file_with_a_classifier_gives_the_backbone_alone(tmp_path: Path, tensors: dict) -> None:
    assert holds(build(TINY, saved(tmp_path, tensors)), headless(tensors))


def test_a_file_without_a_classifier_loads(tmp_path: Path, tensors: dict) -> None:
    assert holds(build(TINY, saved(tmp_path, headless(tensors))), headless(tensors))


@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_state_dict", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_checkpoints_as_trainers_write_them_load(
    tmp_path: Path, tensors: dict, key: str, prefix: str, suffix: str
) -> None:
    content = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    torch.save({key: content, "epoch": 3} if key else content, tmp_path / f"w{suffix}")
    assert holds(build(TINY, str(tmp_path / f"w{suffix}")), headless(tensors))


class Code:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


def test_a_pickle_that_wants_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "evil": Code(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: cannot be read as plain tensors.*\.safetensors"):
        load_file(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_errors_and_nothing_else(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    file = tmp_path / f"w{suffix}"
    content = {"weight": torch.arange(6.0), "bias": torch.ones(2)}
    if suffix == ".pth":
        torch.save(content, file)
    else:
        save_file(content, file)
    damaged = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        assert isinstance(load_file(file), LoadedWeights)
    except WeightsError as error:
        assert str(file) in str(error)


def test_missing_tensors_are_counted_and_named(tmp_path: Path, tensors: dict) -> None:
    fewer = {name: tensor for name, tensor in tensors.items() if not name.startswith("conv_head")}
    with pytest.raises(WeightsError, match=r"lacks 1 of \d+ tensors of this network: conv_head\.weight$"):
        build(TINY, saved(tmp_path, fewer))


def test_tensors_of_another_shape_are_named(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(WeightsError, match=r"1 tensors do not fit.*bn2\.weight is float32 \(3,\), not"):
        build(TINY, saved(tmp_path, {**tensors, "bn2.weight": torch.ones(3)}))


def test_quantised_tensors_are_refused(tmp_path: Path, tensors: dict) -> None:
    quantised = {**tensors, "bn2.weight": tensors["bn2.weight"].to(torch.int8)}
    with pytest.raises(WeightsError, match=r"bn2\.weight is int8"):
        build(TINY, saved(tmp_path, quantised))


def test_unexpected_tensors_are_counted_and_the_first_are_named(tmp_path: Path, tensors: dict) -> None:
    more = {**tensors, **{f"decoder.{index}": torch.zeros(1) for index in range(5)}}
    with pytest.raises(
        WeightsError, match=r"5 tensors.*that this network does not have: decoder\.0, decoder\.1, decoder\.2, …"
    ):
        build(TINY, saved(tmp_path, more))


def test_a_layer_whose_name_only_begins_like_the_classifiers_is_not_dropped(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(WeightsError, match="classifier2"):
        build(TINY, saved(tmp_path, {**tensors, "classifier2.weight": torch.zeros(1)}))


def test_the_auxiliary_classifier_of_inception_is_dropped(tmp_path: Path, tensors: dict) -> None:
    build(TINY, saved(tmp_path, {**tensors, "AuxLogits.fc.weight": torch.zeros(1)}))


@pytest.mark.parametrize(
    ("suffix", "tensor", "kind"),
    [
        (".safetensors", torch.zeros(3, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
        (".pth", torch.zeros(3, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
        (".pth", torch.eye(3).to_sparse(), "sparse_coo"),
        (".pth", torch.zeros(3, device="meta"), "without values"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse:UserWarning")
def test_tensors_that_cannot_be_checked_are_refused(
    suffix: str, tensor: torch.Tensor, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file({"stem": tensor}, file) if suffix == ".safetensors" else torch.save({"stem": tensor}, file)
    with pytest.raises(WeightsError, match=rf"{suffix}: tensor stem is {kind}, which Thaw does not read; save it as"):
        load_file(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, tensors: dict, value: float) -> None:
    damaged = tensors["bn2.bias"].clone()
    damaged[1] = value
    with pytest.raises(WeightsError, match=r"tensor bn2\.bias contains NaN or infinity"):
        load_file(Path(saved(tmp_path, {**tensors, "bn2.bias": damaged})))


def test_half_precision_is_read_into_single(tmp_path: Path, tensors: dict) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    assert holds(build(TINY, saved(tmp_path, half)), headless({k: v.to(tensors[k].dtype) for k, v in half.items()}))


def test_the_file_must_exist_and_have_a_supported_type(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        load_file(tmp_path / "w.safetensors")
    (tmp_path / "w.h5").touch()
    with pytest.raises(WeightsError, match=r"read from \.safetensors, \.pth, \.pt or \.bin files"):
        load_file(tmp_path / "w.h5")


def test_a_file_that_is_not_a_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="is not a dictionary of tensors"):
        load_file(tmp_path / "w.pth")


def test_the_architecture_of_the_file_must_match(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(
        WeightsError, match=r"w\.safetensors: describes weights of resnet50, not of .*add --backbone resnet50"
    ):
        build(TINY, saved(tmp_path, tensors, architecture="resnet50.a1_in1k"))
    build(TINY, saved(tmp_path, tensors, architecture=f"{TINY}.r160_in1k"))


def test_the_padding_that_the_file_names_is_used(tmp_path: Path, tensors: dict) -> None:
    backbone = build(TINY, saved(tmp_path, tensors, pad_type="same"))
    reference = timm.create_model(TINY, pad_type="same").eval().to(memory_format=torch.channels_last)
    reference.load_state_dict(tensors)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
        assert torch.equal(backbone(images), expected)
        assert not torch.equal(build(TINY, saved(tmp_path, tensors))(images), expected)
    assert backbone.facts.model_args == {"pad_type": "same"}


def test_notes_in_the_metadata_are_ignored(tmp_path: Path, tensors: dict) -> None:
    assert build(TINY, saved(tmp_path, tensors, author="me", epoch="5")).facts.model_args == {}


def test_an_unsupported_model_argument_is_refused(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(WeightsError, match="unknown model_args checkpoint_path"):
        build(TINY, saved(tmp_path, tensors, model_args='{"checkpoint_path": "x.pth"}'))


def test_an_invalid_model_argument_is_refused(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(BackboneError, match=r"cannot be built with .*output_stride"):
        build("resnet18", saved(tmp_path, tensors, output_stride="7"))


def test_preprocessing_comes_from_the_metadata(tmp_path: Path, tensors: dict) -> None:
    metadata = {"mean": "[0.1, 0.2, 0.3]", "input_size": "[3, 128, 128]", "interpolation": "bilinear"}
    facts = build(TINY, saved(tmp_path, tensors, **metadata)).facts
    assert facts.mean == (0.1, 0.2, 0.3)
    assert (facts.pixels.size, facts.pixels.interpolation) == (128, "bilinear")
    assert facts.preprocessing_origin == (f"timm's for {TINY}; image_size, interpolation, mean from w.safetensors")


def test_the_recipe_overrides_preprocessing(tmp_path: Path, tensors: dict) -> None:
    wanted = PreprocessingSettings.model_validate({"mean": (0.5, 0.5, 0.5)})
    facts = build(TINY, saved(tmp_path, tensors, mean="[0.1, 0.2, 0.3]", crop_pct="0.8"), wanted).facts
    assert (facts.mean, facts.pixels.crop_pct) == ((0.5, 0.5, 0.5), 0.8)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", "grey"),
        ("std", "[0, 1, 1]"),
        ("input_size", "big"),
        ("interpolation", "nearest"),
        ("crop_pct", "3"),
    ],
)
def test_invalid_preprocessing_is_refused(tmp_path: Path, tensors: dict, key: str, value: str) -> None:
    name = "image_size" if key == "input_size" else key
    with pytest.raises(WeightsError, match=f"invalid preprocessing: {name}"):
        load_file(Path(saved(tmp_path, tensors, **{key: value})))


@pytest.mark.parametrize("nested", [True, False])
def test_a_config_next_to_the_file_is_used(tmp_path: Path, tensors: dict, nested: bool) -> None:
    preprocessing = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.5, 0.5],
        "crop_pct": 0.7,
        "input_size": [3, 96, 96],
    }
    config = {"pretrained_cfg": preprocessing} if nested else preprocessing
    config |= {
        "architecture": TINY,
        "model_args": {"pad_type": "same", "global_pool": "max", "num_classes": 5},
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    facts = build(TINY, saved(tmp_path, tensors, mean="[0.4, 0.4, 0.4]")).facts
    assert (facts.mean, facts.std) == ((0.4, 0.4, 0.4), (0.5, 0.5, 0.5))
    assert (facts.pixels.crop_pct, facts.pixels.size) == (0.7, 96)
    assert facts.preprocessing_origin.endswith(" from config.json and w.safetensors")
    assert facts.model_args == {"pad_type": "same"}


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"mean": 0.5}, r"config\.json, read because .* weights: contains invalid preprocessing: mean \([^)]*\)$"),
        ({"model_args": ["a"]}, r"config\.json, read because .*: model_args must be a mapping"),
        ({"model_args": {"a": 1}}, r"config\.json, read because .*: unknown model_args a"),
        ({"architecture": "resnet50"}, r"config\.json: describes weights of resnet50"),
    ],
)
def test_what_is_wrong_in_the_config_is_not_said_of_the_weights(
    tmp_path: Path, tensors: dict, config: dict, complaint: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(WeightsError, match=complaint):
        build(TINY, saved(tmp_path, tensors, std="[0.5, 0.5, 0.5]"))


def test_a_config_that_is_not_json_is_an_error(tmp_path: Path, tensors: dict) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(
        WeightsError, match=r"config\.json, read because it is next to the weights: cannot be read as JSON"
    ):
        load_file(Path(saved(tmp_path, tensors)))


def test_the_origin_names_the_file_and_its_hash(tmp_path: Path, tensors: dict) -> None:
    file = saved(tmp_path, tensors)
    digest = sha256(Path(file).read_bytes()).hexdigest()
    assert load_file(Path(file)).sha256 == digest
    assert build(TINY, file).facts.origin == f"w.safetensors, sha256 {digest[:12]}"


def test_unpublished_weights_are_an_error() -> None:
    with pytest.raises(WeightsError, match=r"there are no published weights of efficientnet_b7.*--weights FILE"):
        build("efficientnet_b7", "published")


def test_only_networks_of_the_catalogue_can_be_queried() -> None:
    assert not is_cached("efficientnet_b7")
    with pytest.raises(BackboneError, match="not in the catalogue"):
        is_cached("nonsense")


class Server(SimpleHTTPRequestHandler):
    """Serves files as the Hub does: with an ETag and the commit."""

    def end_headers(self) -> None:
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", "c" * 40)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on this machine and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections but never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_url_is_downloaded_once_and_checked_by_its_hash(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address, folder = server
    name = f"w-{sha256(b'weights').hexdigest()[:8]}.pth"
    (folder / name).write_bytes(b"weights")
    (folder / "w-00000000.pth").write_bytes(b"weights")
    assert fetch(f"{address}/{name}").read_bytes() == b"weights"
    (folder / name).unlink()
    assert fetch(f"{address}/{name}").read_bytes() == b"weights"
    with pytest.raises(WeightsError, match="pass --weights FILE"):
        fetch(f"{address}/w-00000000.pth")
    assert not (tmp_path / "torch/hub/checkpoints/w-00000000.pth").exists()


def test_an_unresponsive_server_times_out_quickly(tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert download.TIMEOUT_SECONDS <= 5
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"not on this machine and 127\.0\.0\.1 cannot be reached"):
        fetch(f"{silent}/w.pth")
    assert time.monotonic() - started < 5


SCRIPT = """
import socket, sys, time
from thaw.backbones import download
from thaw.backbones.timm_backbone import build
from thaw.errors import WeightsError
download.TIMEOUT_SECONDS = float(sys.argv[1])
for name in sys.argv[2:]:
    if name == "--no-sockets":
        socket.socket.connect = socket.socket.sendall = None
        continue
    started = time.monotonic()
    try:
        backbone = build(name, "published")
    except WeightsError as error:
        print(round(time.monotonic() - started), error)
    else:
        total = sum(value.double().sum() for value in backbone.network.state_dict().values())
        print(float(total), backbone.facts.origin)
"""


def in_a_new_process(*arguments: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return finished.stdout.strip()


def test_weights_are_downloaded_from_a_mirror_once_and_a_repository_without_access_is_an_error(
    tmp_path: Path, server: tuple[str, Path], tensors: dict
) -> None:
    address, folder = server
    repository = folder / f"timm/{TINY}.r160_in1k/resolve/main"
    repository.mkdir(parents=True)
    file = saved(repository, tensors)
    Path(file).rename(repository / "model.safetensors")
    total = sum(value.double().sum() for value in headless(read_tensors(repository / "model.safetensors")).values())
    home = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}

    words = ("5.0", "resnet18", TINY, "--no-sockets", TINY)
    refused, downloaded, cached = in_a_new_process(*words, HF_ENDPOINT=address, **home).splitlines()
    assert "127.0.0.1 refuses access (" in refused
    assert "404" in refused
    assert downloaded == f"{float(total)} timm, timm/{TINY}.r160_in1k"
    assert cached == downloaded


def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"not on this machine and HF_HUB_OFFLINE forbids downloads"):
        fetch("timm/nobody.has_this")


def test_an_unresponsive_hub_times_out_quickly_with_advice(tmp_path: Path, silent: str) -> None:
    answer = in_a_new_process("0.5", "resnet18", HF_ENDPOINT=silent, HF_HOME=str(tmp_path))
    seconds, _, sentence = answer.partition(" ")
    assert "timm/resnet18.a1_in1k are not on this machine and 127.0.0.1 cannot be reached" in sentence
    assert f"download {silent}/timm/resnet18.a1_in1k/resolve/main/model.safetensors elsewhere" in sentence
    assert "--weights FILE, or use --backbone starter" in sentence
    assert int(seconds) < 5
