"""Pre-trained weights: from the Hub or a local file, checked before use, never executing a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
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
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from thaw import atomic
from thaw.backbones import starter
from thaw.backbones.catalogue import look_up
from thaw.backbones.contract import Backbone
from thaw.errors import WeightsError
from thaw.recipe import PreprocessingSettings

_MODEL_ARGS = ("pad_type", "bn_eps", "act_layer", "output_stride")
_REPLACED_ARGS = ("global_pool", "num_classes", "in_chans", "drop_rate", "drop_path_rate")
_PREPROCESSING = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
# A second classifier, half-way up, that Inception-v3 had in training and that torchvision's file still holds.
_AUXILIARY = ("AuxLogits",)
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_TIMEOUT_SECONDS = 5.0
_SHOWN = 3


@dataclass(frozen=True)
class LoadedWeights:
    """What a file holds; `architecture` is "" where it names none, `model_args` are what rebuilds it."""

    file: Path
    tensors: Mapping[str, Tensor]
    architecture: str
    model_args: Mapping[str, Any]
    preprocessing: PreprocessingSettings
    sha256: str


def load_file(file: Path) -> LoadedWeights:
    """Read a .safetensors file, or a .pth, .pt or .bin file as plain tensors.

    The metadata of a safetensors file may name the architecture, its arguments (`pad_type`, …) and the
    preprocessing (`mean`, `std`, `input_size`, …, as JSON); a `config.json` beside the file, in the form of
    timm and the Hub, is read too, and the metadata wins. Raises `WeightsError`.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such weights file")
    metadata: dict[str, Any] = {}
    if file.suffix.lower() == ".safetensors":
        tensors, metadata = _read_safetensors(file)
    elif file.suffix.lower() in (".pth", ".pt", ".bin"):
        tensors = _read_pickled_tensors(file)
    else:
        raise WeightsError(f"{file}: weights are read from .safetensors, .pth, .pt or .bin files")
    check_finite(tensors, str(file))
    config = _read_config(file.with_name("config.json"))
    return LoadedWeights(
        file=file,
        tensors=tensors,
        architecture=str(metadata.get("architecture") or config.get("architecture") or "").partition(".")[0],
        model_args=_model_args(config, metadata, file),
        preprocessing=_preprocessing(config, metadata, file),
        sha256=_sha256(file),
    )


def write_file(backbone: Backbone, file: Path, half: bool = False, notes: Mapping[str, str] | None = None) -> str:
    """Write the weights of a backbone, and what `load_file` needs to know of them, in one step; gives the SHA-256.

    With `half`, floats in half precision. Raises `WeightsError` where half precision cannot hold them, or the file
    cannot be written.
    """
    facts, tensors = backbone.facts, {}
    for name, value in backbone.named_weights().items():
        tensors[name] = (value.half() if half and value.is_floating_point() else value).contiguous()
    check_finite(tensors, f"{file}, in half precision" if half else str(file))
    metadata = {
        "architecture": facts.architecture,
        "model_args": json.dumps(dict(facts.model_args)),
        "mean": json.dumps(facts.mean),
        "std": json.dumps(facts.std),
        "input_size": json.dumps([3, facts.pixels.size, facts.pixels.size]),
        "crop_pct": json.dumps(facts.pixels.crop_pct),
        "crop_mode": facts.pixels.crop_mode,
        "interpolation": facts.pixels.interpolation,
    }
    content = save(tensors, {**metadata, **(notes or {})})
    try:
        atomic.write_bytes(file, content)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be written: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest()


def refuse_to_overwrite(file: Path) -> None:
    """Raise `WeightsError` for a place where weights cannot go: something is there, no folder, another suffix."""
    if file.suffix.lower() != ".safetensors":
        raise WeightsError(f"{file}: weights are written as .safetensors; name the file so")
    if file.exists():
        raise WeightsError(f"{file}: is there already; remove it or name another file")
    if not file.parent.is_dir():
        raise WeightsError(f"{file}: there is no folder {file.parent}")


def fit_into(network: nn.Module, loaded: LoadedWeights, classifiers: Sequence[str]) -> None:
    """Load every tensor of a headless network from a file, which may hold `classifiers` besides.

    Raises `WeightsError` that counts and names the tensors which are missing, misshapen or left over.
    """
    wanted, given, file = network.state_dict(), loaded.tensors, loaded.file
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(f"{file}: lacks {len(missing)} of {len(wanted)} tensors of this network: {_some(missing)}")
    fitting = {name: given[name] for name in wanted if name in given}
    strange = [
        f"{name} is {_kind(tensor)}, not {_kind(wanted[name])}"
        for name, tensor in fitting.items()
        if tensor.shape != wanted[name].shape or tensor.is_floating_point() != wanted[name].is_floating_point()
    ]
    if strange:
        raise WeightsError(f"{file}: {len(strange)} tensors do not fit this network: {_some(strange)}")
    dropped = tuple(f"{name}." for name in (*classifiers, *_AUXILIARY))
    extra = [name for name in given if name not in wanted and not name.startswith(dropped)]
    if extra:
        raise WeightsError(f"{file}: holds {len(extra)} tensors that this network has no place for: {_some(extra)}")
    network.load_state_dict(fitting, strict=False)


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise `WeightsError` naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{where}: tensor {name} holds values that are not finite; the file is damaged")


def is_cached(name: str) -> bool:
    """Whether the published weights of a network of the catalogue are on this machine; asks no network.

    Raises `BackboneError` for a name that the catalogue lacks.
    """
    source = look_up(name).source
    return source == starter.SOURCE or (bool(source) and _cached(source) is not None)


def fetch(source: str) -> Path:
    """The weights file of a Hub repository or an address: from this machine's cache, else downloaded.

    What is cached is used without opening a socket. Mirror, proxies and offline mode are those of
    huggingface_hub (`HF_ENDPOINT`, `HTTPS_PROXY`, `HF_HUB_OFFLINE`). Raises `WeightsError` within seconds
    where nothing answers.
    """
    cached = _cached(source)
    if cached is not None:
        return cached
    address = source if "://" in source else hf_hub_url(source, _HUB_FILES[0])
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(_unreachable(source, address, "the Hub is switched off by HF_HUB_OFFLINE"))
    try:
        return _download(source)
    except WeightsError:
        raise
    except HfHubHTTPError as error:
        reason = f"{urlsplit(address).hostname} refuses them ({str(error).splitlines()[0]})"
        raise WeightsError(_unreachable(source, address, reason)) from error
    # What is raised depends on the HTTP library below huggingface_hub, which has changed over its versions.
    except Exception as error:
        reason = f"{urlsplit(address).hostname} cannot be reached ({type(error).__name__})"
        raise WeightsError(_unreachable(source, address, reason)) from error


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
    if "://" in source:
        file = _file_of_address(source)
        file.parent.mkdir(parents=True, exist_ok=True)
        # torch's own download waits without a limit for a server that does not answer.
        urlopen(source, timeout=_TIMEOUT_SECONDS).close()
        torch.hub.download_url_to_file(source, str(file), hash_prefix=_hash_in(file), progress=False)
        return file
    for name in _HUB_FILES:
        try:
            # Asking first: `hf_hub_download` would try for 25 s to reach a Hub that does not answer.
            get_hf_file_metadata(hf_hub_url(source, name), timeout=_TIMEOUT_SECONDS)
        except EntryNotFoundError:
            continue
        return Path(hf_hub_download(source, name))
    raise WeightsError(f"{source}: the repository holds neither {' nor '.join(_HUB_FILES)}")


def _unreachable(source: str, address: str, reason: str) -> str:
    return (
        f"the weights {source} are not on this machine and {reason}; fetch {address} elsewhere, copy it here "
        f"and pass --weights FILE, or take --backbone {starter.NAME}, which needs no network"
    )


def _file_of_address(address: str) -> Path:
    """Where torch, and so timm, keeps what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name


def _hash_in(file: Path) -> str | None:
    """The start of the SHA-256 that PyTorch's convention puts into a file name: `name-0123abcd.pth`."""
    match = torch.hub.HASH_REGEX.search(file.name)
    return match.group(1) if match else None


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors: {error}") from error
    return tensors, {key: _plain(value) for key, value in metadata.items()}


def _read_pickled_tensors(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    # Damaged bytes make the unpickler raise anything.
    except Exception as error:
        raise WeightsError(
            f"{file}: cannot be read as plain tensors; it is damaged, or needs code, which is never run from "
            f"a weights file; convert its state_dict to .safetensors"
        ) from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{file}: does not hold a table of tensors; save the network's state_dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file}: lies beside the weights but cannot be read as JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _model_args(config: Mapping[str, Any], metadata: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Arguments of the architecture; any other key of the metadata is a note, any other argument an error."""
    given: dict[str, Any] = {}
    for source in (config, metadata):
        args = source.get("model_args") or {}
        if not isinstance(args, dict):
            raise WeightsError(f"{file}: model_args must be a table of arguments, not {args!r}")
        given |= args
    unknown = [name for name in given if name not in (*_MODEL_ARGS, *_REPLACED_ARGS)]
    if unknown:
        raise WeightsError(f"{file}: model_args holds {_some(unknown)}; known are {', '.join(_MODEL_ARGS)}")
    given |= {name: metadata[name] for name in _MODEL_ARGS if name in metadata}
    return {name: value for name, value in given.items() if name in _MODEL_ARGS}


def _preprocessing(config: Mapping[str, Any], metadata: Mapping[str, Any], file: Path) -> PreprocessingSettings:
    """Preprocessing as timm names it; older Hub files have it at the top level of `config.json`."""
    given: dict[str, Any] = {}
    nested = config.get("pretrained_cfg")
    for source in (nested if isinstance(nested, dict) else config, metadata):
        given |= {key: source[key] for key in _PREPROCESSING if source.get(key) is not None}
        if source.get("input_size") is not None:
            size = source["input_size"]
            given["image_size"] = size[-1] if isinstance(size, list) and size else size
    try:
        return PreprocessingSettings.model_validate(given)
    except ValidationError as error:
        wrong = ", ".join(f"{detail['loc'][0]} ({detail['msg']})" for detail in error.errors())
        raise WeightsError(f"{file}: carries preprocessing that cannot be used: {wrong}") from error


def _plain(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
