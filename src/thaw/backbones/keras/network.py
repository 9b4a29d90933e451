"""A Keras graph as a PyTorch network: a chain of blocks, each a small graph of layers between two single values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from thaw.backbones.cuts import Block
from thaw.backbones.facts import Pooling
from thaw.backbones.keras.graph import Graph, Node
from thaw.backbones.keras.layers import build_layer
from thaw.backbones.keras.weighted import Weighted
from thaw.errors import BackboneError

_STAGES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<block>(?P<stage>conv\d+)_block\d+)",  # ResNet, DenseNet
        r"(?P<block>(?P<stage>block\d+)[a-z])_",  # EfficientNet
        r"\w+_(?P<block>(?P<stage>stage_\d+)_block_\d+)",  # ConvNeXt
        r"\w+_(?P<block>(?P<stage>stem|downsampling)_(?:conv|layernorm)(?P<number>_\d+)?)",
        r"(?P<block>(?P<stage>block_\d+))_",  # MobileNetV2
        r"(?P<block>(?P<stage>expanded_conv(_\d+)?))_",  # MobileNetV3
        r"(?P<block>(?P<stage>block\d+)_\d+)_",  # InceptionResNetV2
        r"(?P<block>(?P<stage>block\d+))_",  # Xception, VGG
        r"(?P<block>(?P<stage>mixed_?\w+))",  # Inception
        r"(?P<block>(?P<stage>conv)_(?:dw|pw)(?P<number>_\d+))",  # MobileNet
        r"(?P<block>(?P<stage>conv\d+|pool\d+|stem|top))_",  # what lies around the blocks
    )
)
"""How Keras's names of layers begin, by family; `stage` is the group of blocks that Keras numbers together."""

_WEIGHTS = (nn.Conv2d, nn.Linear)
_SAMPLE_SIZE = 96
"""Pixels of the image that shapes are found with: small enough to be fast, and enough for Inception's 75."""


class Call(NamedTuple):
    """A node, the module that computes it, and the module's name."""

    attribute: str
    node: Node
    module: nn.Module


class LayerGraph(nn.Module):
    """Layers between one value and another."""

    def __init__(self, calls: Sequence[Call], source: str) -> None:
        super().__init__()
        self._source, self._output = source, calls[-1].node.name
        self._calls = [(call.attribute, call.node.name, call.node.sources) for call in calls]
        for call in calls:
            self.add_module(call.attribute, call.module)

    def forward(self, value: Tensor) -> Tensor:
        """Run every layer."""
        values = {self._source: value}
        for attribute, name, sources in self._calls:
            values[name] = self._modules[attribute](*(values[source] for source in sources))  # type: ignore[misc]
        return values[self._output]


class GlobalPooling(nn.Module):
    """Maps (N, C, H, W) to features (N, width)."""

    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self._pooling = pooling

    def forward(self, value: Tensor) -> Tensor:
        """Pool; `avgmax` is the mean of average and maximum, as in timm."""
        if value.ndim == 2:
            return value
        if self._pooling == "avg":
            return value.mean(dim=(2, 3))
        maximum = value.amax(dim=(2, 3))
        return maximum if self._pooling == "max" else 0.5 * (value.mean(dim=(2, 3)) + maximum)


@dataclass(frozen=True)
class KerasNetwork:
    """A network and what the contract of a backbone needs to know about it.

    Attributes:
        network: The blocks by name, and `pool`.
        blocks: The chain.
        layers: The modules of each of Keras's layers, in the order of `model.layers`; empty for the input.
        weighted: The layers that have weights, by their paths in Keras's model.
    """

    network: nn.Sequential
    blocks: tuple[Block, ...]
    layers: tuple[tuple[str, ...], ...]
    weighted: dict[tuple[str, ...], Weighted]


def _attributes(graph: Graph) -> dict[str, str]:
    """The name of each node's module: its own, with those of the models that contain it where others have it too."""
    own = Counter(node.path[-1] for node in graph.nodes)
    names = {node.name: node.path[-1] if own[node.path[-1]] == 1 else node.name for node in graph.nodes}
    return {name: _attribute(attribute) for name, attribute in names.items()}


def build_network(graph: Graph, pooling: Pooling) -> KerasNetwork:
    """The network of a graph, with weights of zero.

    Raises:
        BackboneError: A layer is not supported, or the layers do not fit together.
    """
    (modules, shapes), attributes = _modules(graph), _attributes(graph)
    network = nn.Sequential()
    blocks: list[Block] = []
    paths: dict[str, str] = {}
    source = graph.input
    for stage, name, nodes in _named(_pieces(graph, modules)):
        calls = [Call(attributes[node.name], node, modules[node.name]) for node in nodes]
        network.add_module(name, LayerGraph(calls, source))
        paths |= {call.node.name: f"{name}.{call.attribute}" for call in calls}
        source = nodes[-1].name
        blocks.append(Block(stage, (name,), shapes[source][1:]))
    network.add_module("pool", GlobalPooling(pooling))
    width = shapes[source][1]
    blocks[-1] = Block(blocks[-1].stage, (*blocks[-1].modules, "pool"), (width,))
    layers: dict[tuple[str, ...], list[str]] = {path: [] for path in graph.layers}
    for node in graph.nodes:
        for length in range(1, len(node.path) + 1):
            layers.get(node.path[:length], []).append(paths[node.name])
    weighted = {node.path: module for node in graph.nodes if isinstance(module := modules[node.name], Weighted)}
    return KerasNetwork(network.eval(), tuple(blocks), tuple(tuple(names) for names in layers.values()), weighted)


def _modules(graph: Graph) -> tuple[dict[str, nn.Module], dict[str, tuple[int, ...]]]:
    """The module of each node, and the shape of its output for one small image."""
    size = min((_SAMPLE_SIZE, *(graph.size or ())))
    values, modules = {graph.input: torch.zeros(1, 3, size, size)}, {}
    for node in graph.nodes:
        inputs = [values[name] for name in node.sources]
        if not inputs:
            raise BackboneError(f"layer {node.name!r} ({node.kind}) takes no layer's output, which is not supported")
        module = build_layer(node, int(inputs[0].shape[1])).eval()
        try:
            with torch.no_grad():
                values[node.name] = module(*inputs)
        except (RuntimeError, TypeError, ValueError) as error:
            raise BackboneError(f"layer {node.name!r} ({node.kind}): cannot be computed: {error}") from error
        modules[node.name] = module
    return modules, {name: tuple(value.shape) for name, value in values.items()}


@dataclass
class _Piece:
    """Layers of one block: those that its name follows from, and others before and behind them."""

    core: list[Node]
    before: list[Node]
    behind: list[Node]

    @property
    def nodes(self) -> list[Node]:
        return [*self.before, *self.core, *self.behind]


def _pieces(graph: Graph, modules: dict[str, nn.Module]) -> list[_Piece]:
    """Layers between places where a single value passes, each piece with weights of its own.

    What follows without weights joins the piece before it, as does BatchNorm; padding joins the convolution behind it.
    """
    pieces: list[_Piece] = []
    waiting: list[Node] = []
    for nodes in _between_single_values(graph):
        if any(isinstance(module, _WEIGHTS) for node in nodes for module in modules[node.name].modules()):
            pieces.append(_Piece(nodes, waiting, []))
            waiting = []
        elif nodes[-1].kind == "ZeroPadding2D" or not pieces:
            waiting = [*waiting, *nodes]
        else:
            pieces[-1].behind += [*waiting, *nodes]
            waiting = []
    if not pieces:
        raise BackboneError("the network has no convolution")
    pieces[-1].behind += waiting
    return pieces


def _between_single_values(graph: Graph) -> Iterator[list[Node]]:
    """The fewest nodes after each of which only the output of the last one is needed."""
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.sources}
    last_use[graph.output] = len(graph.nodes)
    current: list[Node] = []
    needed = {graph.input}
    for index, node in enumerate(graph.nodes):
        current.append(node)
        needed = {name for name in (*needed, node.name) if last_use[name] > index}
        if needed == {node.name}:
            yield current
            current = []


def _named(pieces: Sequence[_Piece]) -> list[tuple[str, str, list[Node]]]:
    """(stage, name, nodes) of each block: the pieces of one block of Keras, or a piece that belongs to none."""
    blocks: list[tuple[str, str, list[Node]]] = []
    for piece in pieces:
        found = [match for node in reversed(piece.core) if (match := _match(node.path[-1]))]
        weighted = [node for node in piece.core if node.kind in _NAMING]
        stage = name = _attribute(weighted[0].path[-1])
        if found:
            stage, name = found[0]
        elif all(_is_numbered(node) for node in weighted):
            stage = blocks[-1][0] if blocks else "stem"
        if blocks and blocks[-1][1] == name:
            blocks[-1][2].extend(piece.nodes)
        else:
            taken = {other for _, other, _ in blocks}
            blocks.append((stage, name if name not in taken else f"{name}_{len(blocks)}", piece.nodes))
    return blocks


_NAMING = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")


def _match(layer: str) -> tuple[str, str] | None:
    """(stage, block) that the name of a layer says."""
    for pattern in _STAGES:
        if match := pattern.match(layer):
            groups = match.groupdict()
            if number := groups.get("number"):
                # What has the same number is one block, such as MobileNet's depthwise and pointwise convolution.
                return f"{groups['stage']}{number}", f"{groups['stage']}{number}"
            return groups["stage"], groups["block"]
    return None


def _is_numbered(node: Node) -> bool:
    """Whether Keras named a layer by itself, such as `conv2d_3`."""
    return re.fullmatch(r"(separable_|depthwise_)?conv2d(_\d+)?|dense(_\d+)?", node.path[-1]) is not None


def _attribute(name: str) -> str:
    """A name that a module can have inside a network."""
    plain = re.sub(r"[./]", "_", name)
    return f"{plain}_" if hasattr(nn.Sequential, plain) or not plain else plain
