"""Files of Keras, read as data: .keras archives, .weights.h5 and older .h5 files; nothing in them is executed."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thaw.backbones.keras.hdf5 import ALWAYS_ALLOWED, MAX_EXPANSION, Group, open_hdf5
from thaw.checksums import sha256_of
from thaw.errors import WeightsError, first_line
from thaw.formats import size as size_text

Layout = Literal["objects", "layers"]
"""How weights are arranged: by the class of a layer and its number among them, or by name of layer and weight."""

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
"""Groups that contain the layers of a model; the second is that of Keras 2.12 to 2.14."""

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LEGACY = "model_weights"
_MAX_JSON = 1 << 25
# What zipfile raises on archives that are damaged.
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error)
_SAVE = "save it in Keras as one file: model.save('model.keras')"


@dataclass(frozen=True)
class KerasFile:
    """What a file of Keras contains.

    Attributes:
        file: The file.
        layout: How its weights are arranged.
        config: The model as Keras describes it, such as `{"class_name": "Functional", "config": {...}}`; `None` in a
            file of weights alone.
        keras_version: The version that wrote it, empty where the file does not say.
        sha256: Of its content.
    """

    file: Path
    layout: Layout
    config: Mapping[str, Any] | None
    keras_version: str
    sha256: str


def read_keras_file(file: Path) -> KerasFile:
    """Read what a file of Keras contains; its weights are left to `read_weights`.

    The content decides which kind it is, not the suffix.

    Raises:
        PackageError: h5py is not installed.
        WeightsError: The file is missing, damaged, not of Keras, or contains what Thaw does not read.
    """
    if file.is_dir():
        raise WeightsError(f"{file}: is a folder, and Thaw reads Keras models from files; {_SAVE}")
    if not file.is_file():
        raise WeightsError(f"{file}: no such weights file")
    if _is_archive(file):
        metadata = _parsed(_member(file, _METADATA, _MAX_JSON), f"{file}, {_METADATA}")
        return KerasFile(
            file=file,
            layout="objects",
            config=_parsed(_member(file, _CONFIG, _MAX_JSON), f"{file}, {_CONFIG}"),
            keras_version=str(metadata.get("keras_version", "")),
            sha256=sha256_of(file),
        )
    with file.open("rb") as stream:
        if stream.read(8) != b"\x89HDF\r\n\x1a\n":
            raise WeightsError(f"{file}: is not a file of Keras; those are .keras, .weights.h5 and .h5")
    with _opened(file) as root:
        text = root.text("model_config")
        layers = root.group([_LEGACY]) or root
        is_legacy = layers.texts("layer_names") is not None
        if not is_legacy and not any(root.group([name]) for name in CONTAINERS):
            raise WeightsError(f"{file}: contains no weights of a Functional or Sequential model of Keras; {_SAVE}")
        if text is not None and len(text) > _MAX_JSON:
            raise WeightsError(f"{file}: the description of the model is too large; the file is damaged")
        return KerasFile(
            file=file,
            layout="layers" if is_legacy else "objects",
            config=None if text is None else _parsed(text, f"{file}, model_config"),
            keras_version=layers.text("keras_version") or "",
            sha256=sha256_of(file),
        )


@contextmanager
def open_weights(file: KerasFile) -> Iterator[Group]:
    """The group of a file in which the layers of its model are; raises `WeightsError`."""
    with _opened(file.file) as root:
        yield root if file.layout == "objects" else root.group([_LEGACY]) or root


@contextmanager
def _opened(file: Path) -> Iterator[Group]:
    """The root of the HDF5 file that a file is or contains."""
    if _is_archive(file):
        content = _member(file, _WEIGHTS, None)
        with open_hdf5(io.BytesIO(content), len(content), f"{file}, {_WEIGHTS}") as root:
            yield root
        return
    with file.open("rb") as stream, open_hdf5(stream, file.stat().st_size, str(file)) as root:
        yield root


def _is_archive(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _member(file: Path, name: str, limit: int | None) -> bytes:
    """A member of a .keras archive, of at most `limit` bytes; without a limit, not much larger than it is stored."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if info.filename == name]
            if len(found) != 1:
                raise WeightsError(f"{file}: contains {name} {len(found)} times, not once; {_SAVE}")
            info = found[0]
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise WeightsError(f"{file}: {name} is encrypted, or compressed in a way that Keras does not; {_SAVE}")
            if info.file_size > (limit or max(ALWAYS_ALLOWED, MAX_EXPANSION * info.compress_size)):
                raise WeightsError(
                    f"{file}: {name} claims {size_text(info.file_size)}, of which the file holds "
                    f"{size_text(info.compress_size)}; it is damaged"
                )
            return archive.read(info)
    except _BROKEN as error:
        raise WeightsError(f"{file}: cannot be read as a .keras file, it is damaged ({first_line(error)})") from error


def _parsed(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where}: cannot be read as JSON, it is damaged ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{where}: must be a JSON object, not {type(content).__name__}; {_SAVE}")
    return content
