"""Files of Keras that are damaged, or made to harm whoever reads them, are refused with one sentence."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from thaw.backbones.keras.files import read_keras_file
from thaw.backbones.keras.stored import read_weights
from thaw.checksums import sha256_of
from thaw.errors import PackageError, WeightsError

CONV = {"module": "keras.layers", "class_name": "Conv2D", "config": {"name": "conv"}, "name": "conv"}
MODEL = {"class_name": "Functional", "config": {"name": "model", "layers": [CONV]}}
KERNEL = np.arange(24, dtype=np.float32).reshape(1, 1, 3, 8)

Write = Callable[[h5py.Group], None]


def _store(group: h5py.Group) -> None:
    group["0"] = KERNEL


def _hdf5(write: Write = _store) -> bytes:
    """A file of weights whose layer `conv` has what `write` puts there."""
    content = BytesIO()
    with h5py.File(content, "w") as opened:
        write(opened.create_group("layers/conv2d/vars"))
    return content.getvalue()


def _archive(file: Path, members: dict[str, bytes | str] | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
    content: dict[str, bytes | str] = {
        "metadata.json": '{"keras_version": "3.15.1"}',
        "config.json": json.dumps(MODEL),
        "model.weights.h5": _hdf5(),
    }
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, value in (content | (members or {})).items():
            archive.writestr(name, value)
    return file


def _kernel(file: Path) -> np.ndarray:
    return read_weights(read_keras_file(file), MODEL, {("conv",): [None]})["conv",][0]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_an_archive_contains(compression: int, tmp_path: Path) -> None:
    file = _archive(tmp_path / "model.keras", compression=compression)
    read = read_keras_file(file)
    assert (read.file, read.layout, read.keras_version) == (file, "objects", "3.15.1")
    assert read.config == MODEL
    assert read.sha256 == sha256_of(file)
    np.testing.assert_array_equal(_kernel(file), KERNEL)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(_hdf5())
    assert read_keras_file(file).config is None
    np.testing.assert_array_equal(_kernel(file), KERNEL)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}])
def test_arrays_of_another_byte_order_or_compressed(byteorder: str, options: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "base.weights.h5"
    file.write_bytes(
        _hdf5(lambda group: group.create_dataset("0", data=KERNEL.astype(f"{byteorder}f4"), **options) and None)
    )
    np.testing.assert_array_equal(_kernel(file), KERNEL)
    assert _kernel(file).dtype.isnative


def _soft_link(group: h5py.Group) -> None:
    group.file["elsewhere"] = KERNEL
    group["0"] = h5py.SoftLink("/elsewhere")


def _external_link(group: h5py.Group) -> None:
    group["0"] = h5py.ExternalLink("/etc/passwd", "/layers")


def _external_storage(group: h5py.Group) -> None:
    group.create_dataset("0", (16,), "u1", external=[("/etc/passwd", 0, 16)])


def _virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((24,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (24,))
    group.create_virtual_dataset("0", layout)


def _reference(group: h5py.Group) -> None:
    group.create_dataset("0", data=group.ref, dtype=h5py.ref_dtype)


def _ragged(group: h5py.Group) -> None:
    group.create_dataset("0", (3,), h5py.vlen_dtype("f4"))


def _text(group: h5py.Group) -> None:
    group["0"] = "a text"


def _compound(group: h5py.Group) -> None:
    group["0"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])


def _never_written(group: h5py.Group) -> None:
    group.create_dataset("0", (1 << 40,), "f4", chunks=(1 << 10,))


def _overflowing(group: h5py.Group) -> None:
    group.create_dataset("0", (1 << 31, 1 << 31), "f4", chunks=(1 << 10, 1 << 5))


def _zeros(group: h5py.Group) -> None:
    group.create_dataset("0", data=np.zeros(1 << 23, dtype="f4"), compression="gzip")


def _large_chunk(group: h5py.Group) -> None:
    group.create_dataset("0", (3,), "f4", maxshape=(None,), chunks=(1 << 28,), compression="gzip")


def _scaled(group: h5py.Group) -> None:
    group.create_dataset("0", data=KERNEL, scaleoffset=3)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_soft_link, "vars/0 is a link to another place"),
        (_external_link, "vars/0 is a link to another place"),
        (_external_storage, "vars/0 keeps its numbers in another file"),
        (_virtual, "vars/0 is assembled from other files"),
        (_reference, "vars/0 does not consist of numbers"),
        (_ragged, "vars/0 does not consist of numbers"),
        (_text, "vars/0 does not consist of numbers"),
        (_compound, "vars/0 does not consist of numbers"),
        (_never_written, r"vars/0 claims 4,398.0 GB, of which the file holds 0 bytes"),
        (_overflowing, r"vars/0 claims [\d,.]+ GB, of which the file holds 0 bytes"),
        (_zeros, "vars/0 claims 34 MB, of which the file holds"),
        (_large_chunk, "vars/0 claims 1.1 GB, of which the file holds"),
        (_scaled, "vars/0 is compressed by filter 6"),
    ],
)
@pytest.mark.parametrize("is_archive", [False, True])
def test_arrays_that_no_file_of_weights_contains(write: Write, reason: str, is_archive: bool, tmp_path: Path) -> None:
    file = tmp_path / "model"
    if is_archive:
        _archive(file, {"model.weights.h5": _hdf5(write)})
    else:
        file.write_bytes(_hdf5(write))
    with pytest.raises(WeightsError, match=reason) as raised:
        _kernel(file)
    assert str(raised.value).startswith(str(file))


@pytest.mark.parametrize("name", ["layers", "model_weights"])
@pytest.mark.parametrize("link", [h5py.SoftLink("/elsewhere"), h5py.ExternalLink("other.h5", "/layers")])
def test_groups_that_are_links(name: str, link: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.h5"
    with h5py.File(file, "w") as opened:
        opened.create_group("elsewhere").attrs["layer_names"] = ["conv"]
        opened[name] = link
    with pytest.raises(WeightsError, match=f"/{name} is a link to another place"):
        read_keras_file(file)


def test_one_array_under_many_names_does_not_fill_the_memory(tmp_path: Path) -> None:
    file, large = tmp_path / "model.weights.h5", np.zeros(1 << 20, dtype=np.float32)
    entries = []
    with h5py.File(file, "w") as opened:
        opened["array"] = large
        for number in range(200):
            name = f"conv2d_{number}" if number else "conv2d"
            opened.create_group(f"layers/{name}/vars")["0"] = opened["array"]
            entries.append({**CONV, "name": name})
    description = {"class_name": "Functional", "config": {"layers": entries}}
    with pytest.raises(WeightsError, match="contains the same weights many times"):
        read_weights(read_keras_file(file), description, {(entry["name"],): [None] for entry in entries})


def test_a_group_inside_itself(tmp_path: Path) -> None:
    file = tmp_path / "model.weights.h5"
    with h5py.File(file, "w") as opened:
        group = opened.create_group("layers")
        group["conv2d"] = group["vars"] = opened["layers"]
    with pytest.raises(WeightsError, match="do not fit this network"):
        _kernel(file)


def test_names_that_lead_out_of_the_group(tmp_path: Path) -> None:
    file = tmp_path / "model.h5"
    with h5py.File(file, "w") as opened:
        opened["secret"] = KERNEL
        opened.attrs["layer_names"] = ["conv", "/", ".", "../secret"]
        opened.create_group("conv").attrs["weight_names"] = ["/secret"]
    with pytest.raises(WeightsError, match="do not fit this network"):
        _kernel(file)


def test_names_of_layers_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "model.h5"
    with h5py.File(file, "w") as opened:
        opened.attrs.create("layer_names", [opened.ref], dtype=h5py.ref_dtype)
    with pytest.raises(WeightsError, match="attribute layer_names is no text"):
        read_keras_file(file)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_members_that_claim_too_much(name: str, tmp_path: Path) -> None:
    file = _archive(tmp_path / "model.keras", {name: bytes(1 << 26)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=f"{name} claims 67 MB, of which the file holds 65 kB"):
        _kernel(file)


def test_a_member_that_is_twice_in_an_archive(tmp_path: Path) -> None:
    file = _archive(tmp_path / "model.keras")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.weights.h5", _hdf5())
    with pytest.raises(WeightsError, match=r"contains model\.weights\.h5 2 times, not once"):
        _kernel(file)


def test_compression_that_keras_does_not_use(tmp_path: Path) -> None:
    file = _archive(tmp_path / "model.keras", compression=zipfile.ZIP_LZMA)
    with pytest.raises(WeightsError, match=r"metadata\.json is encrypted, or compressed in a way that Keras does not"):
        read_keras_file(file)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "damaged"), ("[" * 200_000, "damaged"), ("[1]", "must be a JSON object, not list"), (b"\xff", "damaged")],
)
def test_a_configuration_that_is_no_json(text: str | bytes, reason: str, tmp_path: Path) -> None:
    file = _archive(tmp_path / "model.keras", {"config.json": text})
    with pytest.raises(WeightsError, match=f"config.json: .*{reason}"):
        read_keras_file(file)


def test_models_inside_each_other_without_end(tmp_path: Path) -> None:
    description: dict[str, Any] = MODEL
    for _ in range(200):
        description = {"class_name": "Functional", "config": {"name": "inner", "layers": [description]}}
    file = _archive(tmp_path / "model.keras")
    with pytest.raises(WeightsError, match="more than 20 models inside each other"):
        read_weights(read_keras_file(file), description, {("conv",): [None]})


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damaged_files_are_refused_or_read_as_they_were(suffix: str, tmp_path: Path) -> None:
    whole, file = tmp_path / "whole", tmp_path / f"model{suffix}"
    content = _archive(whole).read_bytes() if suffix == ".keras" else _hdf5()
    random, refused = np.random.default_rng(0), 0
    for number in range(300):
        damaged = bytearray(content)
        if number % 2:
            del damaged[int(random.integers(len(content))) :]
        else:
            for place in random.integers(len(content), size=8):
                damaged[place] ^= int(random.integers(1, 256))
        file.write_bytes(damaged)
        try:
            _kernel(file)
        except WeightsError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        read_keras_file(tmp_path / "absent.keras")
    with pytest.raises(WeightsError, match=r"is a folder, .*model\.save\('model\.keras'\)"):
        read_keras_file(tmp_path)
    file = tmp_path / "model.keras"
    for content in (b"", b"PK", b"\x80\x04}", b"<html>"):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="is not a file of Keras"):
            read_keras_file(file)
    with h5py.File(file, "w") as opened:
        opened["data"] = KERNEL
    with pytest.raises(WeightsError, match="contains no weights of a Functional or Sequential model"):
        read_keras_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.weights.npz", b"")
    with pytest.raises(WeightsError, match=r"contains metadata\.json 0 times, not once"):
        read_keras_file(file)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.h5"
    file.write_bytes(_hdf5())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(PackageError, match=r'need h5py: pip install "thaw-vision\[keras\]"'):
        read_keras_file(file)


def test_keras_is_not_imported(tmp_path: Path) -> None:
    import subprocess

    file = _archive(tmp_path / "model.keras")
    code = (
        "import sys; from pathlib import Path\n"
        "from thaw.backbones.keras import files, stored\n"
        f"read = files.read_keras_file(Path({str(file)!r}))\n"
        "assert stored.read_weights(read, read.config, {('conv',): [None]})\n"
        "assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
