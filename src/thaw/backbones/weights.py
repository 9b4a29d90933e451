"""Files of pre-trained weights, read, written and checked before use; no pickle is ever executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from thaw import atomic
from thaw.backbones.contract import Backbone
from thaw.backbones.descriptions import Description, model_args_of, preprocessing_of, read_config
from thaw.backbones.int8 import packed, unpacked
from thaw.checksums import sha256_of
from thaw.errors import WeightsError
from thaw.recipe import PreprocessingSettings
from thaw.tensors import bytes_of_tensors

_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
# The auxiliary classifier that Inception-v3 was trained with and that torchvision's file still contains.
_AUXILIARY = ("AuxLogits",)
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SHOWN = 3


@dataclass(frozen=True)
class LoadedWeights:
    """Content of a weights file, and what it or the `config.json` next to it says about it.

    Attributes:
        file: The file.
        tensors: The weights by name.
        architecture: "" where neither names any.
        architecture_from: The file that names it.
        model_args: Arguments of the architecture.
        preprocessing: As far as it is given.
        preprocessing_from: The files that give it, none where neither does.
        sha256: Of the content.
        int8: Whether convolutions are in eight bits.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    architecture: str
    architecture_from: Path
    model_args: Mapping[str, Any]
    preprocessing: PreprocessingSettings
    preprocessing_from: tuple[Path, ...]
    sha256: str
    int8: bool = False


def load_file(file: Path) -> LoadedWeights:
    """Read a .safetensors file, or a .pth, .pt or .bin file as plain tensors.

    The metadata of a safetensors file may name the architecture, its arguments (`pad_type`, …) and the preprocessing
    (`mean`, `std`, `input_size`, …, as JSON). A `config.json` in the same folder, in the format of timm and the Hub, is
    read too; the metadata takes precedence.

    Raises:
        WeightsError: The file is missing, damaged, of another type, or would need code to be loaded.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such weights file")
    metadata: dict[str, Any] = {}
    if file.suffix.lower() == ".safetensors":
        tensors, metadata = _read_safetensors(file)
    elif file.suffix.lower() in (".pth", ".pt", ".bin"):
        tensors = _read_pickled_tensors(file)
    else:
        raise WeightsError(f"{file}: weights are read from .safetensors, .pth, .pt or .bin files")
    if _says_int8(metadata):
        tensors = unpacked(tensors)
    check_finite(tensors, str(file))
    config = read_config(file.with_name("config.json"))
    own = Description(file, str(file), metadata)
    named = own if metadata.get("architecture") else config
    preprocessing, preprocessing_from = preprocessing_of(config, own)
    return LoadedWeights(
        file=file,
        tensors=tensors,
        architecture=str(named.values.get("architecture") or "").partition(".")[0],
        architecture_from=named.file,
        model_args=model_args_of(config, own),
        preprocessing=preprocessing,
        preprocessing_from=preprocessing_from,
        sha256=sha256_of(file),
        int8=_says_int8(metadata),
    )


def is_int8(file: Path) -> bool:
    """Whether a file has the weights of a network in int8, without reading these; raises `WeightsError`."""
    if file.suffix.lower() != ".safetensors" or not file.is_file():
        return False
    with _opened(file) as stream:
        return _says_int8(_metadata(stream))


def write_file(backbone: Backbone, file: Path, half: bool = False, notes: Mapping[str, str] | None = None) -> str:
    """Write the weights of a backbone, with the metadata that `load_file` reads, atomically.

    Args:
        backbone: The backbone.
        file: The .safetensors file.
        half: Store floats in half precision.
        notes: Further metadata.

    Returns:
        The SHA-256 of the file.

    Raises:
        WeightsError: Half precision cannot represent a weight.
        WriteError: The file cannot be written.
    """
    facts, tensors = backbone.facts, {}
    for name, value in packed(backbone.named_weights()).items():
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
    if facts.int8:
        metadata["int8"] = "true"
    content = bytes_of_tensors(tensors, {**metadata, **(notes or {})})
    atomic.write_bytes(file, content)
    return hashlib.sha256(content).hexdigest()


def fit_into(network: nn.Module, loaded: LoadedWeights, classifiers: Sequence[str]) -> None:
    """Load every tensor of a headless network from a file, which may also contain the layers `classifiers`.

    Raises:
        WeightsError: Tensors are missing, of another shape, or unexpected; it counts and names them.
    """
    wanted, given, file = network.state_dict(), loaded.tensors, loaded.file
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(f"{file}: lacks {len(missing)} of {len(wanted)} tensors of this network: {_some(missing)}")
    fitting = {name: given[name] for name in wanted if name in given}
    mismatched = [
        f"{name} is {_kind(tensor)}, not {_kind(wanted[name])}"
        for name, tensor in fitting.items()
        if tensor.shape != wanted[name].shape or tensor.is_floating_point() != wanted[name].is_floating_point()
    ]
    if mismatched:
        raise WeightsError(f"{file}: {len(mismatched)} tensors do not fit this network: {_some(mismatched)}")
    dropped = tuple(f"{name}." for name in (*classifiers, *_AUXILIARY))
    extra = [name for name in given if name not in wanted and not name.startswith(dropped)]
    if extra:
        raise WeightsError(f"{file}: contains {len(extra)} tensors that this network does not have: {_some(extra)}")
    network.load_state_dict(fitting, strict=False)


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise `WeightsError` that names the first tensor with NaN or infinity, or whose values cannot be read."""
    for name, tensor in tensors.items():
        if kind := _unreadable(tensor):
            raise WeightsError(
                f"{where}: tensor {name} is {kind}, which Thaw does not read; save it as a dense tensor in float32"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{where}: tensor {name} contains NaN or infinity; the file is damaged")


def _unreadable(tensor: Tensor) -> str:
    """What kind of tensor, few operations of which PyTorch has, this is; "" for an ordinary one."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.is_meta:
        return "without values"
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS:
        return str(tensor.dtype).removeprefix("torch.")
    return ""


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _opened(file) as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        return tensors, _metadata(stream)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors: {error}") from error


def _metadata(stream: Any) -> dict[str, Any]:
    return {key: _plain(value) for key, value in (stream.metadata() or {}).items()}


def _says_int8(metadata: Mapping[str, Any]) -> bool:
    return metadata.get("int8") is True


def _read_pickled_tensors(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    # The unpickler raises arbitrary exceptions on damaged data.
    except Exception as error:
        raise WeightsError(
            f"{file}: cannot be read as plain tensors; it is damaged, or needs code, which is never executed from "
            f"a weights file; convert its state_dict to .safetensors"
        ) from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{file}: is not a dictionary of tensors; save the network's state_dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _plain(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
