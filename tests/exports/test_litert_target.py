"""One .tflite file with Thaw's probabilities, class names and metadata; where it cannot be made, one sentence."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.exports.classifiers import CLASSES, random_classifier
from thaw.bundle import read_bundle, write_bundle
from thaw.cli import app
from thaw.errors import ExportError
from thaw.exports import litert_target, target
from thaw.exports.certificate import reference_cases
from thaw.exports.export import TARGETS, Exported, export_bundle
from thaw.exports.litert_conversion import _MeansInTwoSteps
from thaw.exports.target import TOLERANCE
from thaw.recipe import Task

is_installed = all(find_spec(name) for name in TARGETS["litert"].packages)
needs_litert = pytest.mark.skipif(not is_installed, reason='needs pip install "thaw-vision[litert]"')


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "model"
    write_bundle(random_classifier(), folder)
    return folder


@pytest.fixture(scope="module")
def exported(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_bundle(bundle, "litert", tmp_path_factory.mktemp("out") / "model.tflite")


@needs_litert
def test_a_tflite_file_gives_thaws_probabilities_for_images_at_the_models_size(
    exported: Exported, bundle: Path
) -> None:
    cases = reference_cases(read_bundle(bundle), bundle, at_model_size=True)
    assert exported.certificate.images == len(cases) > 3
    assert exported.certificate.max_difference <= TOLERANCE
    probabilities = litert_target.load(exported.path)(np.stack([case.image for case in cases]))
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities - np.stack([case.expected for case in cases])).max() <= TOLERANCE
    assert len({tuple(np.round(row, 2)) for row in probabilities}) > len(cases) // 2


@needs_litert
def test_the_signature_has_names_and_takes_bytes(exported: Exported) -> None:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(exported.path)).get_signature_runner()
    (images,), (probabilities,) = runner.get_input_details().items(), runner.get_output_details().items()
    assert images[0] == "images"
    assert tuple(images[1]["shape"]) == (1, 64, 64, 3)
    assert images[1]["dtype"] is np.uint8
    assert probabilities[0] == "probabilities"
    assert tuple(probabilities[1]["shape"]) == (1, 3)


@needs_litert
def test_class_names_and_metadata_are_in_a_zip_archive_at_the_end(exported: Exported, bundle: Path) -> None:
    with zipfile.ZipFile(exported.path) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)
        metadata = json.loads(archive.read("thaw.json"))
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert metadata["architecture"] == read_bundle(bundle).backbone.facts.architecture
    assert "(N, 64, 64, 3)" in metadata["input"]
    assert len(metadata["bundle_sha256"]) == 64


@needs_litert
def test_the_metadata_buffer_names_the_labels_of_the_output(exported: Exported) -> None:
    model = _model(exported.path)
    entry = next(item for item in model.metadata if item.name == b"TFLITE_METADATA")
    described = bytes(model.buffers[entry.buffer].data)
    assert described[4:8] == b"M001"
    root = _Table.root(described)
    graph = root.tables(3)[0]
    (images,), (probabilities,) = graph.tables(2), graph.tables(3)
    assert images.text(0) == "images"
    size = images.table(3).table(1).table(1)
    assert (size.integer(0), size.integer(1)) == (64, 64)
    assert probabilities.text(0) == "probabilities"
    (labels,) = probabilities.tables(6)
    assert labels.text(0) == "labels.txt"
    assert labels.byte(2) == 2, "TENSOR_AXIS_LABELS"
    assert root.tables(6)[0].text(0) == "thaw.json"


@needs_litert
def test_weights_are_aligned_as_the_schema_demands(exported: Exported) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(exported.path.read_bytes(), 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if not buffer.DataIsNone()]
    assert len(starts) > 10
    assert all(start % 16 == 0 for start in starts)


@needs_litert
def test_the_file_reveals_nothing_about_the_machine_that_wrote_it(exported: Exported) -> None:
    content = exported.path.read_bytes()
    assert str(Path(target.__file__).parents[2]).encode() not in content
    assert b".py" not in content


@needs_litert
@pytest.mark.slow
@pytest.mark.parametrize(("task", "hidden"), [("binary", ()), ("multilabel", (8,))])
def test_every_task_is_certified(task: Task, hidden: tuple[int, ...], tmp_path: Path) -> None:
    write_bundle(random_classifier(task=task, hidden=hidden), tmp_path / "bundle")
    done = export_bundle(tmp_path / "bundle", "litert", tmp_path / "model.tflite")
    assert done.certificate.max_difference <= TOLERANCE


@needs_litert
@pytest.mark.slow
def test_the_command_prints_no_line_of_the_converter(bundle: Path, tmp_path: Path) -> None:
    program = "from thaw.cli import main; main()"
    out = tmp_path / "model.tflite"
    command = [sys.executable, "-c", program, "export", bundle, "--to", "litert", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


@needs_litert
def test_a_failed_conversion_is_one_sentence_and_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(litert_target, "_CONVERSION", "thaw.no_such_module")
    with pytest.raises(ExportError, match=r"model\.tflite: litert-torch cannot convert the model: .*No module named"):
        export_bundle(bundle, "litert", tmp_path / "out" / "model.tflite")
    assert not list((tmp_path / "out").glob("*"))


def test_means_over_maps_are_converted_in_two_steps() -> None:
    class Mean(torch.nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.mean(dim=(2, 3), keepdim=True)

    maps = torch.rand((1, 3, 5, 7), generator=torch.Generator().manual_seed(0))
    with _MeansInTwoSteps():
        program = torch.export.export(Mean(), (maps,))
        assert torch.equal(maps.mean(dim=1), maps.mean(1))
    means = [node for node in program.graph.nodes if node.target == torch.ops.aten.mean.dim]
    assert [len(node.args[1]) for node in means] == [1, 1]
    assert torch.allclose(program.module()(maps), maps.mean(dim=(2, 3), keepdim=True))


def test_on_other_systems_one_sentence_names_what_to_use_instead(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ExportError, match=r"--to litert: .* exist for Linux only; use --to onnx, or --to keras"):
        export_bundle(bundle, "litert", tmp_path / "model.tflite")


def test_missing_packages_are_one_sentence_with_the_install_command(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(target, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["export", str(bundle), "--to", "litert", "--out", str(tmp_path / "m.tflite")])
    assert isinstance(result.exception, ExportError)
    assert str(result.exception) == (
        'this export needs litert_torch and ai_edge_litert: pip install "thaw-vision[litert]"'
    )
    assert not (tmp_path / "m.tflite").exists()


def _model(file: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer, read as its format defines; fields are numbered as the schema lists them."""

    data: bytes
    position: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, *struct.unpack_from("<I", data))

    def _field(self, number: int) -> int:
        table = self.position - struct.unpack_from("<i", self.data, self.position)[0]
        (offset,) = struct.unpack_from("<H", self.data, table + 4 + 2 * number)
        assert offset, f"field {number} is missing"
        return self.position + offset

    def _followed(self, position: int) -> int:
        return position + struct.unpack_from("<I", self.data, position)[0]

    def byte(self, number: int) -> int:
        return self.data[self._field(number)]

    def integer(self, number: int) -> int:
        return struct.unpack_from("<I", self.data, self._field(number))[0]

    def table(self, number: int) -> _Table:
        return _Table(self.data, self._followed(self._field(number)))

    def text(self, number: int) -> str:
        start = self._followed(self._field(number))
        (length,) = struct.unpack_from("<I", self.data, start)
        return self.data[start + 4 : start + 4 + length].decode()

    def tables(self, number: int) -> list[_Table]:
        start = self._followed(self._field(number))
        (length,) = struct.unpack_from("<I", self.data, start)
        return [_Table(self.data, self._followed(start + 4 + 4 * index)) for index in range(length)]
