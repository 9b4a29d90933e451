"""A user's own Keras model, divided into the network below its global pooling and the head above it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from thaw.backbones.keras.graph import Graph, Node
from thaw.backbones.keras.preprocessing import Mode
from thaw.errors import BackboneError
from thaw.formats import listed

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
    """Divide a model where its last maps are pooled, whatever its head does with them.

    Raises:
        BackboneError: Its maps or its preprocessing cannot be told, or its maps are those of classes.
    """
    nodes = _head_nodes(graph)
    base = _below(graph, _last_maps(graph, nodes))
    if _computes_classes(base.nodes[-1:]) or (_computes_classes(nodes) and not _has_weights(nodes)):
        raise BackboneError(
            "its last maps are those of its classes; save the part of the model below the layer of these"
        )
    head = _head(nodes) if nodes else "it has no global pooling"
    family, mode = _preprocessing(base)
    if isinstance(head, str):
        return OwnModel(base, None, head, family, mode)
    return OwnModel(base, head, "", family, mode)


def _head_nodes(graph: Graph) -> tuple[Node, ...]:
    """What is computed from pooled maps, and no maps from it; squeeze-and-excitation pools maps to change maps."""
    maps = {graph.input}
    for node in graph.nodes:
        if not maps.isdisjoint(node.sources) and not _pools(node):
            maps.add(node.name)
    leads_to_maps = set(maps)
    for node in reversed(graph.nodes):
        if node.name in leads_to_maps:
            leads_to_maps.update(node.sources)
    return tuple(node for node in graph.nodes if node.name not in leads_to_maps)


def _last_maps(graph: Graph, head: Sequence[Node]) -> str:
    """The node whose maps a head pools; where it pools those of several layers, the one that depends on the others."""
    if not head:
        return graph.output
    pooled = {source for node in _poolings(head) for source in node.sources}
    for name in pooled - {graph.input}:
        if pooled <= {graph.input, *(node.name for node in graph.up_to(name).nodes)}:
            return name
    if pooled == {graph.input}:
        raise BackboneError("the network has no convolution")
    raise BackboneError(
        f"it pools the maps of several branches, {' and '.join(sorted(pooled))}; save the part of the model up to the "
        f"maps of one of them"
    )


def _pools(node: Node) -> bool:
    """Whether a node makes features of maps."""
    return node.kind in (*_POOLING, "Flatten") or (node.kind == "Reshape" and len(node.config["target_shape"]) == 1)


def _poolings(head: Sequence[Node]) -> list[Node]:
    """The nodes of a head that are computed from anything but the head."""
    inside = {node.name for node in head}
    return [node for node in head if not inside.issuperset(node.sources)]


def _computes_classes(nodes: Sequence[Node]) -> bool:
    return any(node.kind == "Softmax" or node.config.get("activation") in ("softmax", "sigmoid") for node in nodes)


def _has_weights(nodes: Sequence[Node]) -> bool:
    return any(node.kind in (*_CONVOLUTIONS, "Dense") for node in nodes)


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


def _head(nodes: Sequence[Node]) -> DenseHead | str:
    """The head that some layers are, the first of which pools, or why they are none that Thaw has."""
    pooling, *others = _poolings(nodes)
    if others:
        return f"its head takes {listed([node.name for node in (pooling, *others)])}"
    if pooling.kind not in _POOLING:
        return f"its head takes every position of the maps ({pooling.kind})"
    dense: list[Node] = []
    dropout = 0.0
    for node in nodes[1:]:
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
