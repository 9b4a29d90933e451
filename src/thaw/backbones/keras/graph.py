"""The graph of a Keras model, read from its configuration as data; nothing in it is imported or executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from thaw.errors import BackboneError
from thaw.formats import count

MODELS = ("Functional", "Model", "Sequential")
"""Class names of models that consist of layers and nothing else."""

_NOT_OF_THE_GRAPH = frozenset({"trainable", "dtype", "batch_shape", "batch_input_shape", "noise_shape", "seed"})
"""Settings of a layer that do not change what it computes when nothing is trained."""

_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")


Input = str | float | tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """One layer or operation.

    Attributes:
        path: Names of the models that contain it, outermost first, and its own.
        kind: Class name of the layer; `ops.` and the class name for an operation on tensors.
        inputs: What it is called with, in order: names of other nodes, numbers, or a number for each channel.
        config: What it computes, as JSON.
        name: Unique in the graph.
    """

    path: tuple[str, ...]
    kind: str
    inputs: tuple[Input, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes that it takes the output of."""
        return tuple(value for value in self.inputs if isinstance(value, str))


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run, from one input to one output.

    Attributes:
        nodes: Without the input.
        input: Name of the input, which no node has.
        output: Name of the node whose output is that of the model.
        layers: Paths of the layers in the order of Keras's `model.layers`, the input and nested models included; those
            of a model inside the model if that contains every convolution, such as a frozen `base_model`.
        size: Height and width of the input in pixels; `None` if any is accepted.
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    layers: tuple[tuple[str, ...], ...]
    size: tuple[int, int] | None = None

    def up_to(self, output: str) -> Graph:
        """The part that the output of a node depends on."""
        sources, used, waiting = {node.name: node.sources for node in self.nodes}, set[str](), [output]
        while waiting:
            name = waiting.pop()
            if name not in used:
                used.add(name)
                waiting += sources.get(name, ())
        return replace(self, nodes=tuple(node for node in self.nodes if node.name in used), output=output)

    def to_json(self) -> dict[str, Any]:
        """The graph as JSON, which `from_json` reads: lists alone, so that it is the same once written and read."""
        nodes = [
            [
                list(node.path),
                node.kind,
                [list(value) if isinstance(value, tuple) else value for value in node.inputs],
                dict(node.config),
                node.name,
            ]
            for node in self.nodes
        ]
        return {
            "nodes": nodes,
            "input": self.input,
            "output": self.output,
            "layers": [list(path) for path in self.layers],
            "size": list(self.size) if self.size else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Graph:
        """The graph that `to_json` described."""
        nodes = (
            Node(tuple(path), kind, tuple(tuple(v) if isinstance(v, list) else v for v in inputs), config, name)
            for path, kind, inputs, config, name in value["nodes"]
        )
        size = tuple(value["size"]) if value["size"] else None
        layers = tuple(tuple(path) for path in value["layers"])
        return cls(tuple(nodes), value["input"], value["output"], layers, size)


def read_graph(model: Mapping[str, Any]) -> Graph:
    """The graph of a model.

    Args:
        model: `{"class_name": "Functional", "config": {...}}` as in the config.json of a .keras file, or the attribute
            `model_config` of an .h5 file, of Keras 3 or 2. Models inside the model are expanded.

    Raises:
        BackboneError: It is not a graph of layers with one input and one output.
    """
    try:
        expanded = _expand(model, (), "input")
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        raise BackboneError(f"not the configuration of a Keras model: {type(error).__name__} {error}") from error
    return expanded.up_to(expanded.output)


def _expand(model: Mapping[str, Any], path: tuple[str, ...], source: str) -> Graph:
    """The graph of a model that is called with the output of `source`."""
    kind, config = model["class_name"], model["config"]
    if kind not in MODELS:
        raise BackboneError(f"a model of class {kind!r} is code, which is never executed; save a functional model")
    entries = config["layers"]
    calls = _calls_in_sequence(entries) if kind == "Sequential" else _calls(config)
    names: dict[str, str] = {}
    nodes: list[Node] = []
    models: list[Graph] = []
    size = None
    for entry, inputs in zip(entries, calls, strict=True):
        name = _name(entry)
        shape = entry["config"].get("batch_shape") or entry["config"].get("batch_input_shape")
        if not path and not nodes:
            _check_channels(shape)
        size = size or _size(shape)
        if entry["class_name"] == "InputLayer":
            names[name] = source
            continue
        if unknown := [value for value in inputs if isinstance(value, str) and value not in names]:
            raise BackboneError(f"layer {name!r} takes the output of {unknown[0]!r}, which is not listed before it")
        taken = tuple(names[value] if isinstance(value, str) else value for value in inputs) or (source,)
        if entry["class_name"] in MODELS:
            inner = _expand(entry, (*path, name), _only(taken, name))
            nodes += inner.nodes
            models.append(inner)
            names[name], size = inner.output, size or inner.size
        else:
            nodes.append(_node(entry, (*path, name), taken))
            names[name] = nodes[-1].name
    output = _name(entries[-1]) if kind == "Sequential" else _single(config["output_layers"], "outputs")
    if kind != "Sequential":
        _single(config["input_layers"], "inputs")
    layers = tuple((*path, _name(entry)) for entry in entries if not _is_operation(entry))
    convolutions = _convolutions(nodes)
    for inner in models:
        layers = inner.layers if convolutions and _convolutions(inner.nodes) == convolutions else layers
    return Graph(tuple(nodes), source, names[output], layers, size)


def _node(entry: Mapping[str, Any], path: tuple[str, ...], inputs: tuple[Input, ...]) -> Node:
    kind = f"ops.{entry['class_name']}" if _is_operation(entry) else entry["class_name"]
    config = {
        key: value
        for key, value in entry["config"].items()
        if key not in _NOT_OF_THE_GRAPH and key != "name" and not key.endswith(_TRAINING_ONLY)
    }
    if kind == "ops.GetItem":
        config["channel"] = _channel_of(entry)
    return Node(path, kind, inputs, config, "/".join(path))


def _channel_of(entry: Mapping[str, Any]) -> int:
    """k of `x[..., k]`, as in `preprocess_input`; raises `BackboneError` for anything else."""
    match entry["inbound_nodes"][0]["args"]:
        case [_, [{"class_name": "__ellipsis__"}, int(channel)]]:
            return channel
    raise BackboneError(f"layer {_name(entry)!r} takes a part of its input, of which only x[..., channel] is supported")


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _convolutions(nodes: Sequence[Node]) -> int:
    return sum("Conv2D" in node.kind for node in nodes)


def _is_operation(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is an operation on tensors such as `x + 3.0`, which Keras does not count as a layer.

    An .h5 file does not say its module, but an operation has nothing to train.
    """
    if entry["class_name"] in (*MODELS, "InputLayer"):
        return False
    return str(entry.get("module") or "").startswith(("keras.src.ops.", "keras.ops")) or (
        "module" not in entry and not entry["config"].keys() & {"trainable", "dtype"}
    )


def _calls_in_sequence(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [(), *((_name(entry),) for entry in entries[:-1])]


def _calls(config: Mapping[str, Any]) -> Iterator[tuple[Input, ...]]:
    """What each layer of a functional model is called with: names of layers, and numbers."""
    for entry in config["layers"]:
        calls = entry["inbound_nodes"]
        if len(calls) > 1:
            raise BackboneError(f"layer {_name(entry)!r} is called {len(calls)} times, only one call is supported")
        if not calls:
            yield ()
        elif isinstance(calls[0], Mapping):
            tensors = [value for value in calls[0].get("kwargs", {}).values() if isinstance(value, Mapping)]
            # The only argument of this operation that is no tensor says which part it takes.
            given = calls[0]["args"][:1] if entry["class_name"] == "GetItem" else calls[0]["args"]
            yield tuple(_arguments([*given, *tensors], _name(entry)))
        else:
            yield tuple(str(call[0]) for call in calls[0])


def _arguments(values: Sequence[Any], layer: str) -> Iterator[Input]:
    for value in values:
        if isinstance(value, list):
            yield from _arguments(value, layer)
        elif isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
            yield str(value["config"]["keras_history"][0])
        elif isinstance(value, Mapping) and value.get("class_name") == "__tensor__":
            yield _constant(value["config"]["value"], layer)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield float(value)
        elif value is not None and not isinstance(value, bool):
            raise BackboneError(f"layer {layer!r} is called with {value!r}, which is not supported")


def _constant(value: Any, layer: str) -> float | tuple[float, ...]:
    """A constant tensor: a number, or one for each channel, of any number of axes of one element before."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return tuple(float(item) for item in value)
    if not isinstance(value, int | float):
        raise BackboneError(f"layer {layer!r} is called with a constant that is not one number for each channel")
    return float(value)


def _single(layers: Sequence[Any], what: str) -> str:
    """The layer of `["name", 0, 0]` or `[["name", 0, 0]]`."""
    if layers and isinstance(layers[0], str):
        return layers[0]
    if len(layers) != 1:
        raise BackboneError(f"the model has {len(layers)} {what}, only one is supported")
    return str(layers[0][0])


def _only(values: tuple[Input, ...], layer: str) -> str:
    if len(values) != 1 or not isinstance(values[0], str):
        raise BackboneError(f"model {layer!r} is called with {len(values)} values, only one is supported")
    return values[0]


def _check_channels(shape: Sequence[Any] | None) -> None:
    """Raise `BackboneError` for images (N, H, W, C) of other channels than 3; a layer refuses (N, 3, H, W)."""
    if shape and len(shape) == 4 and shape[3] not in (3, None) and shape[1] != 3:
        raise BackboneError(
            f"it takes images of {count(shape[3], 'channel')}, and Thaw those of 3 only, red, green and blue; "
            "begin the model with an input of 3 channels"
        )


def _size(shape: Sequence[Any] | None) -> tuple[int, int] | None:
    """Height and width of a shape (N, H, W, C)."""
    if not shape or len(shape) != 4 or not shape[1] or not shape[2]:
        return None
    return int(shape[1]), int(shape[2])
