"""LiteRT in int8: much smaller, with one set of metadata, and refused beyond the accuracy limit."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from thaw.errors import ExportError
from thaw.exports.export import export_int8
from thaw.exports.litert_int8 import _same_padding
from thaw.run_folder import RunFolder

needs_litert = pytest.mark.skipif(
    find_spec("litert_torch") is None, reason="needs pip install 'thaw-vision[litert]', on Linux"
)


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "dilation", "expected"),
    [(224, 3, 2, 1, (0, 1)), (112, 3, 1, 1, (1, 1)), (7, 5, 1, 1, (2, 2)), (9, 3, 2, 1, (1, 1)), (9, 3, 1, 2, (2, 2))],
)
def test_padding_is_that_of_tensorflow(
    length: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
) -> None:
    assert _same_padding(length, kernel, stride, dilation) == expected


@needs_litert
@pytest.mark.slow
def test_int8_is_much_smaller_and_has_its_metadata_once(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    done = export_int8(trained.model, "litert", tmp_path / "model.tflite", images, max_drop=100.0)
    assert done.quantisation is not None
    assert done.quantisation.after.size < 0.5 * done.quantisation.before.size
    assert done.size == done.path.stat().st_size
    model = schema.ModelT.InitFromPackedBuf(done.path.read_bytes(), 0)
    assert [item.name for item in model.metadata].count(b"TFLITE_METADATA") == 1
    with zipfile.ZipFile(done.path) as archive:
        assert archive.namelist() == ["labels.txt", "thaw.json"]


@needs_litert
@pytest.mark.slow
def test_int8_beyond_the_accuracy_limit_is_refused(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8 lowers accuracy by"):
        export_int8(trained.model, "litert", tmp_path / "model.tflite", images, max_drop=-101.0)
    assert list(tmp_path.iterdir()) == []
