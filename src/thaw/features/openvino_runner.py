"""The frozen part run by OpenVINO, the fastest engine measured on CPUs.

PyTorch traces the network and OpenVINO's front end reads the trace directly. `openvino.convert_model` does the same,
but reports usage over the network.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.features.torch_runner import Frozen, Precision
from thaw.openvino_runtime import (
    UNPINNED,
    ConstantFolding,
    FrontEndManager,
    Manager,
    TorchScriptPythonDecoder,
    openvino,
    properties,
)

CHUNK = 4
"""Images in one request; a small chunk stays in the caches of a core. Measured on 2 cores at 224 px, images/s for
chunks of 1, 2, 4, 8, 32: MobileNetV2 in fp32 254, 277, 242, 222, 213; ResNet50 in bf16 50, 53, 52, 50, 48."""

_T = TypeVar("_T")
_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenVinoRunner:
    """Runs the frozen blocks on the CPU, several requests in parallel."""

    def __init__(self, backbone: Backbone, positions: Sequence[int], precision: Precision, image_size: int) -> None:
        self.positions = tuple(positions)
        if backbone.device.type != "cpu":
            backbone = copy.deepcopy(backbone).cpu()
        self._frozen = Frozen(backbone, positions)
        compiled = _compiled(self._frozen, precision, image_size)
        self._shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        self._queue = openvino.AsyncInferQueue(compiled)
        self._queue.set_callback(_copy_outputs)

    def run(self, pixels: Tensor) -> list[AtCut]:
        """What lies at each position, float32 on the CPU, for pixels (N, S, S, 3) uint8 0..255.

        The last chunk is padded with black images, whose outputs are dropped: a network of a fixed shape is faster.
        """
        images = pixels.cpu().numpy()
        outputs = [np.empty((len(images), *shape), np.float32) for shape in self._shapes]
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            if len(chunk) < CHUNK:
                chunk = np.concatenate([chunk, np.zeros((CHUNK - len(chunk), *chunk.shape[1:]), np.uint8)])
            self._queue.start_async(np.ascontiguousarray(chunk), (start, outputs))
        self._queue.wait_all()
        return self._frozen.at_cuts([torch.from_numpy(output) for output in outputs])


def _copy_outputs(request: openvino.InferRequest, place: tuple[int, list[np.ndarray]]) -> None:
    """Copy the outputs of a request to the rows of its images."""
    start, outputs = place
    for index, output in enumerate(outputs):
        rows = output[start : start + CHUNK]
        rows[...] = request.get_output_tensor(index).data[: len(rows)]


@dataclass
class _Recent(Generic[_T]):
    """The values that were made last, by what they were made from."""

    most: int
    values: OrderedDict[Hashable, _T] = field(default_factory=OrderedDict)

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The value of a key, which is made if it is not one of the last."""
        value = self.values.pop(key) if key in self.values else make()
        self.values[key] = value
        while len(self.values) > self.most:
            self.values.popitem(last=False)
        return value


_MODELS: _Recent[openvino.Model] = _Recent(1)
_COMPILED: _Recent[openvino.CompiledModel] = _Recent(2)
"""A run probes two precisions of one network, measures settings with one of them and extracts with it. To convert
MobileNetV2 takes 1 s, to compile it 0.3 s."""


def _compiled(frozen: Frozen, precision: Precision, image_size: int) -> openvino.CompiledModel:
    """A network compiled for the CPU with its current weights."""
    backbone, shape = frozen.backbone, (CHUNK, image_size, image_size, 3)
    network = (backbone.digest(frozen.positions[-1]), backbone.facts.mean, backbone.facts.std, frozen.positions, shape)
    threads = torch.get_num_threads()

    def compile_model() -> openvino.CompiledModel:
        return openvino.Core().compile_model(
            _MODELS.get(network, lambda: _converted(frozen, shape)),
            "CPU",
            {
                properties.hint.inference_precision: _TYPES[precision],
                properties.hint.performance_mode: properties.hint.PerformanceMode.THROUGHPUT,
                properties.inference_num_threads: threads,
                **UNPINNED,
            },
        )

    return _COMPILED.get((network, precision, threads), compile_model)


def _converted(frozen: Frozen, shape: tuple[int, ...]) -> openvino.Model:
    """The OpenVINO model of a network, for pixels of one shape."""
    # Tracing runs the network, which takes less time for a single image.
    example = torch.zeros(1, *shape[1:], dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch deprecates tracing, which OpenVINO needs; timm warns where it branches on a size.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(frozen, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced)
        front_end = FrontEndManager().load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    model.reshape(list(shape))
    if frozen.backbone.facts.int8:
        # OpenVINO computes in integers only where the ranges are constants of the graph, not computed from some.
        folding = Manager()
        folding.register_pass(ConstantFolding())
        folding.run_passes(model)
    return model
