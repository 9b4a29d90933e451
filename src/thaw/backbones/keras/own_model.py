"""A user's own Keras model, divided into the network below its global pooling and the dense layers above it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from thaw.backbones.keras.graph import Graph, Node
from thaw.backbones.keras.preprocessing import Mode
from thaw.errors import BackboneError

_POOLING: dict[str, Literal["avg", "max"]] = {"GlobalAveragePooling2D": "avg", "GlobalMaxPooling2D": "max"}
_LAST = (("Softmax", "linear"), ("Activation", "linear"), ("Activation", "softmax"))
"""(class, activation) of a layer that may follow the last dense one."""
_RESCALING = ("Rescaling", "Normalization", "ops.TrueDivide", "ops.Divide", "ops.Multiply", "ops.Subtract", "ops.Add")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")

_FAMILIES: tuple[tuple[str, str, Mode], ...] = (
    (r"conv5_block\d+_preact_bn", "ResNetV2", "tf"),
    (r"conv5_block\d+_concat", "DenseNet", "torch"),
    (r"conv5_block\d+_out", "ResNet", "caffe"),
    (r"block14_sepconv2", "Xception", "tf"),
    (r"mixed10|mixed_7a", "Inception", "tf"),
    (r"block_16_project", "MobileNetV2", "tf"),
    (r"conv_pw_13", "MobileNet", "tf"),
    (r"expanded_conv_10_project|expanded_conv_10/project", "MobileNetV3", "tf"),
    (r"block5_conv3", "VGG", "caffe"),
)
"""(layer that only this family has, family, how `preprocess_input` of that family preprocesses)."""


@dataclass(frozen=True)
class DenseHead:
    """Dense layers with ReLU between them, as Thaw's heads have.

    Attributes:
        paths: The layers, the last of which gives the outputs.
        units: Units of the hidden layers.
        outputs: Units of the last layer.
        dropout: Before the last layer.
        pooling: What the first layer takes of the network's maps.
    """

    paths: tuple[tuple[str, ...], ...]
    units: tuple[int, ...]
    outputs: int
    dropout: float
    pooling: Literal["avg", "max"]


@dataclass(frozen=True)
class OwnModel:
    """A model in two parts.

    Attributes:
        graph: Everything below the global pooling.
        head: The dense layers; `None` where they are not such as Thaw's heads have.
        why_no_head: Why there is none.
        family: Which application of Keras it contains; "" if it is not recognised.
        mode: How its images are preprocessed: as this family's are, unless the model rescales by itself.
    """

    graph: Graph
    head: DenseHead | None
    why_no_head: str
    family: str
    mode: Mode


def divide(graph: Graph) -> OwnModel:
    """Divide a model; raises `BackboneError` where there is no pooling, or no telling how images are preprocessed."""
    nodes = {node.name: node for node in graph.nodes}
    above: list[Node] = []
    node = nodes[graph.output]
    while node.kind not in (*_POOLING, "Flatten") and node.kind not in _CONVOLUTIONS:
        if len(node.sources) != 1 or node.sources[0] not in nodes:
            break
        above.insert(0, node)
        node = nodes[node.sources[0]]
    has_head = node.kind in (*_POOLING, "Flatten") and node.sources and node.sources[0] in nodes
    output = node.sources[0] if has_head else graph.output
    base = _below(graph, output)
    family, mode = _preprocessing(base)
    if not has_head:
        return OwnModel(base, None, "it has no global pooling followed by dense layers", family, mode)
    head = _head(above, node)
    if isinstance(head, str):
        return OwnModel(base, None, head, family, mode)
    return OwnModel(base, head, "", family, mode)


def _below(graph: Graph, output: str) -> Graph:
    """The part of a graph that a node's output depends on, with the layers of that part only."""
    part = graph.up_to(output)
    inside = {node.path[:length] for node in part.nodes for length in range(1, len(node.path) + 1)}
    return replace(part, layers=tuple(path for path in graph.layers if path in inside))


def _preprocessing(graph: Graph) -> tuple[str, Mode]:
    """(family, mode) of a network."""
    found = next(((name, mode) for pattern, name, mode in _FAMILIES if _has_layer(graph, pattern)), None)
    first = next((index for index, node in enumerate(graph.nodes) if node.kind in _CONVOLUTIONS), len(graph.nodes))
    if any(node.kind in _RESCALING for node in graph.nodes[:first]):
        return found[0] if found else "", "inside"
    if found is None:
        raise BackboneError(
            "it neither rescales its images nor contains a network of keras.applications that Thaw knows, so how "
            "they must be preprocessed cannot be told; begin the model with a Rescaling layer"
        )
    return found


def _has_layer(graph: Graph, pattern: str) -> bool:
    return any(re.match(pattern, node.path[-1]) for node in graph.nodes)


def _head(nodes: Sequence[Node], pooling: Node) -> DenseHead | str:
    """The head of some layers above a pooling, or why there is none."""
    if pooling.kind not in _POOLING:
        return "its head takes every position of the maps (Flatten)"
    dense: list[Node] = []
    dropout = 0.0
    for node in nodes:
        activation = node.config.get("activation", "linear")
        if node.kind == "Dense":
            if dense and dense[-1].config["activation"] != "relu":
                return f"layer {dense[-1].path[-1]!r} has the activation {dense[-1].config['activation']}, not relu"
            dense.append(node)
        elif node.kind == "Dropout":
            dropout = float(node.config["rate"])
        elif node is not nodes[-1] or (node.kind, activation) not in _LAST:
            return f"layer {node.path[-1]!r} is of class {node.kind}"
    if not dense or not all(node.config["use_bias"] for node in dense):
        return "it has no dense layers, or some without a bias"
    last = dense[-1].config
    if last["activation"] not in ("linear", "softmax", "sigmoid"):
        return f"the last layer has the activation {last['activation']}"
    return DenseHead(
        paths=tuple(node.path for node in dense),
        units=tuple(int(node.config["units"]) for node in dense[:-1]),
        outputs=int(last["units"]),
        dropout=dropout,
        pooling=_POOLING[pooling.kind],
    )
