"""The frozen part executed by OpenVINO: on CPUs the fastest engine that was measured.

The network is traced by PyTorch and read by OpenVINO's front end directly. `openvino.convert_model` would do the same,
but reports its use over the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import torch
from openvino import properties
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.features.torch_runner import Frozen, Precision

CHUNK = 4
"""Images in one request. Measured on 2 cores at 224 px, images/s by chunk 1, 2, 4, 8, 32: MobileNetV2 in fp32 254, 277,
242, 222, 213; ResNet50 in bf16 50, 53, 52, 50, 48: small ones stay in the cores' own caches."""

_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenVinoRunner:
    """Runs the frozen blocks on the CPU, one request a core at a time."""

    def __init__(self, backbone: Backbone, positions: Sequence[int], precision: Precision) -> None:
        self.positions = tuple(positions)
        self._chunk = (CHUNK, backbone.facts.pixels.size, backbone.facts.pixels.size, 3)
        model = _converted(Frozen(backbone, positions), self._chunk)
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                properties.hint.inference_precision: _TYPES[precision],
                properties.hint.performance_mode: properties.hint.PerformanceMode.THROUGHPUT,
                properties.inference_num_threads: torch.get_num_threads(),
            },
        )
        self._shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        self._queue = openvino.AsyncInferQueue(compiled)
        self._queue.set_callback(_keep)

    def run(self, pixels: Tensor) -> list[Tensor]:
        """Outputs at the positions for pixels (N, S, S, 3) uint8: float32, on the CPU.

        The last chunk is filled up with images whose outputs are dropped, for a network of a fixed shape is faster.
        """
        images = pixels.cpu().numpy()
        outputs = [np.empty((len(images), *shape), np.float32) for shape in self._shapes]
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            if len(chunk) < CHUNK:
                chunk = np.concatenate([chunk, np.zeros((CHUNK - len(chunk), *chunk.shape[1:]), np.uint8)])
            self._queue.start_async(np.ascontiguousarray(chunk), (start, outputs))
        self._queue.wait_all()
        return [torch.from_numpy(output) for output in outputs]


def _keep(request: openvino.InferRequest, place: tuple[int, list[np.ndarray]]) -> None:
    """Copy what a request gave to where its images belong."""
    start, outputs = place
    for index, output in enumerate(outputs):
        kept = output[start : start + CHUNK]
        kept[...] = request.get_output_tensor(index).data[: len(kept)]


def _converted(frozen: Frozen, shape: tuple[int, ...]) -> openvino.Model:
    """The network as OpenVINO has it, for pixels of one shape."""
    with torch.no_grad(), warnings.catch_warnings():
        # OpenVINO reads traced modules, which PyTorch calls deprecated; timm warns where it branches on a size.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(frozen, torch.zeros(shape, dtype=torch.uint8), check_trace=False)
        decoder = TorchScriptPythonDecoder(traced)
        front_end = FrontEndManager().load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    model.reshape(list(shape))
    return model
