"""A .tflite file in int8: rounded, quantised and corrected as `thaw.exports.onnx_int8` describes for ONNX.

Quantised is what lies after the first convolution of every path up to the last, so normalising the pixels, pooling and
the head stay exact. AI Edge Quantizer inserts the scales; LiteRT computes what the convolutions see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thaw.backbones.keras.padding import same_padding
from thaw.backbones.rounding import Convolution, PatchStatistics, rounded_weights, scale_of_rows
from thaw.exports.deployment import INPUT
from thaw.exports.head_correction import Linear, corrected_layer

_PREFIX = "quantised_"
"""Names of the tensors that the quantiser finds by their name."""
_SUPPORTED = (
    *("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MUL", "PAD", "MEAN", "CONCATENATION", "LOGISTIC", "HARD_SWISH", "RELU"),
    *("AVERAGE_POOL_2D", "MAX_POOL_2D"),
)
"""Operations that run in int8."""
_LARGEST_BIAS = 2**30
"""In units of its scale; half of what int32 holds, so that sums do not overflow."""
_SIGNATURE = "serving_default"
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def quantised(model: bytes, images: np.ndarray) -> bytes:
    """The .tflite file `model` in int8, calibrated on images (N, S, S, 3) uint8."""
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer

    graph = _Graph.of(model)
    graph.name_quantised()
    head = graph.last("FULLY_CONNECTED")
    logits = _round_convolutions(graph, images, head.outputs[0])
    quantiser = Quantizer(graph.to_bytes())
    for name in _SUPPORTED:
        quantiser.add_static_config(f"^{_PREFIX}", TFLOperationName(name), 8, 8)
    calibration = [{INPUT: image[None]} for image in images]
    ranges = quantiser.calibrate({_SIGNATURE: calibration}, num_threads=torch.get_num_threads())
    int8 = _Graph.of(bytes(quantiser.quantize(ranges).quantized_model))
    _widen_scales(int8, graph)
    head = int8.last("FULLY_CONNECTED")
    features = np.stack([found[head.inputs[0]].reshape(-1) for found in int8.run(images, {head.inputs[0]})])
    _correct_head(int8, head, features, logits)
    return int8.to_bytes()


@dataclass(frozen=True)
class _Graph:
    """The one graph of a .tflite file, as the objects of its schema."""

    model: Any
    graph: Any

    @classmethod
    def of(cls, model: bytes) -> _Graph:
        from ai_edge_litert.tools import flatbuffer_utils

        read = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
        return cls(read, read.subgraphs[0])

    def to_bytes(self) -> bytes:
        from thaw.exports.litert_metadata import packed

        return packed(self.model)

    def kind(self, operation: Any) -> str:
        """The name of an operation."""
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        code = self.model.operatorCodes[operation.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return next(name for name, value in vars(BuiltinOperator).items() if value == number)

    def last(self, kind: str) -> Any:
        """The last operation of this kind."""
        return [operation for operation in self.graph.operators if self.kind(operation) == kind][-1]

    def convolutions(self) -> list[Any]:
        """All convolutions."""
        return [item for item in self.graph.operators if self.kind(item) in _CONVOLUTIONS]

    def roundable(self) -> list[Any]:
        """The convolutions that are quantised and whose weights are stored, each used once."""
        found = self.convolutions()
        uses = [operation.inputs[1] for operation in found]
        return [
            item
            for item in found
            if self.is_quantised(item) and uses.count(item.inputs[1]) == 1 and self.values(item.inputs[1]) is not None
        ]

    def name_quantised(self) -> None:
        """Name the outputs of all operations between the first and the last convolution of a path, the last included.

        The first convolution stays exact, because the 256 values of a pixel less a mean of 127.5 all lie halfway
        between two of int8, which must have a zero.
        """
        operations = self.graph.operators
        after: set[int] = set()
        for item in operations:
            if self.kind(item) in _CONVOLUTIONS or after.intersection(item.inputs):
                after.update(item.outputs)
        before: set[int] = set()
        for item in reversed(operations):
            is_convolution = self.kind(item) in _CONVOLUTIONS
            if is_convolution or before.intersection(item.outputs):
                before.update(item.inputs)
                if after.intersection(item.inputs):
                    for tensor in item.outputs:
                        self.graph.tensors[tensor].name = f"{_PREFIX}{tensor}".encode()

    def is_quantised(self, operation: Any) -> bool:
        """Whether `name_quantised` has named its output."""
        return self.graph.tensors[operation.outputs[0]].name.startswith(_PREFIX.encode())

    def values(self, tensor: int) -> np.ndarray | None:
        """The stored values of a tensor of float32; `None` if it is computed."""
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        if data is None:
            return None
        return np.frombuffer(bytes(data), np.float32).reshape(self.graph.tensors[tensor].shape)

    def replace(self, tensor: int, values: np.ndarray) -> None:
        """Store other values, in the type of the tensor; if it shares its buffer, it gets one of its own."""
        from ai_edge_litert.schema_py_generated import BufferT

        stored = self.graph.tensors[tensor]
        if sum(other.buffer == stored.buffer for other in self.graph.tensors) > 1:
            stored.buffer = len(self.model.buffers)
            self.model.buffers.append(BufferT())
        self.model.buffers[stored.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    def run(self, images: np.ndarray, tensors: set[int]) -> Iterator[Mapping[int, np.ndarray]]:
        """The values of some tensors for each image (1, ...)."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=self.to_bytes(),
            num_threads=torch.get_num_threads(),
            experimental_preserve_all_tensors=True,
            # The engine for CPUs keeps its intermediate results to itself.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        entry = interpreter.get_input_details()[0]["index"]
        for image in images:
            interpreter.set_tensor(entry, image[None])
            interpreter.invoke()
            yield {tensor: interpreter.get_tensor(tensor) for tensor in tensors}


def _round_convolutions(graph: _Graph, images: np.ndarray, logits: int) -> np.ndarray:
    """Round the weights of the convolutions in place; returns the logits (N, outputs) before."""
    convolutions = graph.roundable()
    shapes = [graph.graph.tensors[item.inputs[0]].shape for item in convolutions]
    geometry = [_geometry(graph, item, shape) for item, shape in zip(convolutions, shapes, strict=True)]
    patches = [PatchStatistics(item) for item in geometry]
    found_logits = []
    for found in graph.run(images, {logits, *(item.inputs[0] for item in convolutions)}):
        found_logits.append(found[logits])
        for item, sums in zip(convolutions, patches, strict=True):
            sums.add(torch.from_numpy(found[item.inputs[0]]).movedim(3, 1))
    for item, sums in zip(convolutions, patches, strict=True):
        weights = graph.values(item.inputs[1])
        assert weights is not None
        # (1, H, W, outputs) where depthwise, else (outputs, H, W, inputs).
        axes = (3, 0, 1, 2) if graph.kind(item) == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
        ordered = weights.transpose(axes)
        rows = ordered.reshape(len(ordered), -1).astype(np.float64)
        rounded, shift = rounded_weights(rows, scale_of_rows(rows), sums.statistics())
        restored = rounded.reshape(ordered.shape).transpose(np.argsort(axes))
        graph.replace(item.inputs[1], restored.astype(np.float32))
        bias = graph.values(item.inputs[2]) if len(item.inputs) > 2 and item.inputs[2] >= 0 else None
        if bias is not None:
            graph.replace(item.inputs[2], (bias - shift).astype(np.float32))
    return np.concatenate(found_logits)


def _geometry(graph: _Graph, operation: Any, inputs: tuple[int, ...]) -> Convolution:
    from ai_edge_litert.schema_py_generated import Padding

    options, weights = operation.builtinOptions, graph.graph.tensors[operation.inputs[1]].shape
    stride, dilation = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    padding = [(0, 0), (0, 0)]
    if options.padding == Padding.SAME:
        padding = [same_padding(inputs[axis], weights[axis], stride[axis - 1], dilation[axis - 1]) for axis in (1, 2)]
    (top, bottom), (left, right) = padding
    if graph.kind(operation) == "DEPTHWISE_CONV_2D":
        shape, groups = (weights[3], 1, weights[1], weights[2]), inputs[3]
    else:
        shape, groups = (weights[0], weights[3], weights[1], weights[2]), inputs[3] // weights[3]
    return Convolution(shape, (left, right, top, bottom), stride, dilation, groups)


def _widen_scales(int8: _Graph, fp32: _Graph) -> None:
    """Widen the scales of channels whose weights are so small that their bias overflows, in place.

    A bias is an int32 in units of the scales of the input and of the weights. Networks have channels whose weights are
    nearly zero and whose output is therefore their bias, which the quantiser would clip to nearly nothing. A scale that
    is tiny against that of the output also keeps the fastest engine, XNNPACK, from running the convolution.
    """
    from ai_edge_litert.schema_py_generated import TensorType

    tensors = int8.graph.tensors
    for operation, original in zip(int8.convolutions(), fp32.convolutions(), strict=True):
        weights = tensors[operation.inputs[1]]
        exact = fp32.values(original.inputs[2]) if len(original.inputs) > 2 and original.inputs[2] >= 0 else None
        if weights.type != TensorType.INT8 or exact is None:
            continue
        of_input, of_output = (
            float(tensors[tensor].quantization.scale[0]) for tensor in (operation.inputs[0], operation.outputs[0])
        )
        scale = np.asarray(weights.quantization.scale, np.float64)
        wider = np.maximum(scale, np.maximum(np.abs(exact), of_output) / (_LARGEST_BIAS * of_input))
        shape = [1, 1, 1, 1]
        shape[weights.quantization.quantizedDimension] = -1
        stored = np.frombuffer(bytes(int8.model.buffers[weights.buffer].data), np.int8).reshape(weights.shape)
        int8.replace(operation.inputs[1], np.rint(stored * (scale / wider).reshape(shape)).astype(np.int8))
        int8.replace(operation.inputs[2], np.rint(exact / (of_input * wider)).astype(np.int32))
        weights.quantization.scale = wider.astype(np.float32)
        tensors[operation.inputs[2]].quantization.scale = (of_input * wider).astype(np.float32)


def _correct_head(graph: _Graph, head: Any, features: np.ndarray, logits: np.ndarray) -> None:
    weights, bias = (graph.values(tensor) for tensor in head.inputs[1:3])
    assert weights is not None
    assert bias is not None
    layer = Linear(weights.astype(np.float64), bias.astype(np.float64))
    corrected = corrected_layer(layer, features.astype(np.float64), logits.astype(np.float64))
    graph.replace(head.inputs[1], corrected.weights.astype(np.float32))
    graph.replace(head.inputs[2], corrected.bias.astype(np.float32))
