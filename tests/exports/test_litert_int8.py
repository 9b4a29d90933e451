"""LiteRT in int8: much smaller, with one set of metadata, and refused beyond the accuracy limit."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from thaw.errors import ExportError
from thaw.exports.export import export_int8
from thaw.exports.litert_int8 import _Graph, quantised
from thaw.exports.litert_runtime import silenced
from thaw.run_folder import RunFolder

TENSOR_FLOAT32, TENSOR_INT8 = 0, 9
"""Numbers of the schema of .tflite files."""

needs_litert = pytest.mark.skipif(
    find_spec("litert_torch") is None, reason='needs pip install "thaw-vision[litert]", on Linux'
)


@needs_litert
@pytest.mark.slow
def test_a_channel_of_tiny_weights_keeps_its_bias() -> None:
    import litert_torch

    torch.manual_seed(0)
    network = _Network()
    with torch.no_grad():
        network.second.weight[0] = 1e-13
        network.second.bias[0] = 2.0
    example = {"images": torch.zeros((1, 8, 8, 3), dtype=torch.uint8)}
    with silenced():
        model = litert_torch.convert(network.eval(), sample_kwargs=example).model_content()
        int8 = _Graph.of(quantised(model, np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)))
    first, second = int8.convolutions()
    assert int8.graph.tensors[first.inputs[1]].type == TENSOR_FLOAT32
    assert int8.graph.tensors[second.inputs[1]].type == TENSOR_INT8
    bias = int8.graph.tensors[second.inputs[2]]
    stored = np.frombuffer(bytes(int8.model.buffers[bias.buffer].data), np.int32) * bias.quantization.scale
    assert stored[0] == pytest.approx(2.0, abs=1e-4)
    assert np.abs(stored[1:] - network.second.bias.detach().numpy()[1:]).max() < 0.05


class _Network(torch.nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3)
        self.second = torch.nn.Conv2d(4, 4, 3)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = images.permute(0, 3, 1, 2).float() / 255.0
        maps = self.second(self.first(pixels).relu()).relu()
        return {"probabilities": self.head(maps.mean(dim=(2, 3))).softmax(dim=1)}


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
