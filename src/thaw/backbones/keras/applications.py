"""The graphs of `keras.applications`, taken from Keras itself."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from thaw.backbones.keras.graph import Graph, Node, read_graph
from thaw.backbones.keras.layers import REVERSE_CHANNELS
from thaw.backbones.keras.preprocessing import Mode
from thaw.backbones.keras.stored import snake_case
from thaw.errors import BackboneError, first_line

_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Application:
    """A network of `keras.applications` without its classifier.

    Attributes:
        config: As Keras describes it, which says how a file arranges its weights.
        graph: What it computes from RGB pixels, normalised with the mean and deviation of its family.
    """

    config: Mapping[str, Any]
    graph: Graph


def load_application(name: str, size: int, mode: Mode) -> Application:
    """A network for images of `size` pixels.

    Args:
        name: As in `keras.applications`, such as `ResNet50`.
        size: Keras pads some layers differently for odd and even sizes.
        mode: How its family preprocesses; `caffe` is given blue first.

    Raises:
        BackboneError: Keras refuses the size.
        PackageError: Keras is not installed.
    """
    from thaw.keras_runtime import keras

    build = getattr(keras.applications, name)
    try:
        model = build(weights=None, include_top=False, input_shape=(size, size, 3))
    except ValueError as error:
        raise BackboneError(f"keras:{name}: Keras does not build it for {size} pixels: {first_line(error)}") from error
    config = {"class_name": "Functional", "config": _renumbered(json.loads(json.dumps(model.get_config())))}
    return Application(config, _adapted(read_graph(config), name, mode))


def _adapted(graph: Graph, name: str, mode: Mode) -> Graph:
    """What `weights="imagenet"` and `preprocess_input` add to the graph of a network that was built without weights."""
    if re.fullmatch(r"EfficientNetB\d", name):
        # Keras adds it for `weights="imagenet"` only, and leaves it out without a word for a file with those weights.
        scales = [1 / math.sqrt(value) for value in _IMAGENET_DEVIATION]
        graph = _insert_behind(graph, "Normalization", "Rescaling", {"scale": scales, "offset": 0.0})
    return reverse_channels(graph) if mode == "caffe" else graph


def reverse_channels(graph: Graph) -> Graph:
    """A graph that takes RGB where it took BGR."""
    reverse = Node(("reverse_channels",), REVERSE_CHANNELS, (graph.input,), {}, "reverse_channels")
    nodes = (_with_inputs(node, {graph.input: reverse.name}) for node in graph.nodes)
    return replace(graph, nodes=(reverse, *nodes))


def _insert_behind(graph: Graph, behind: str, kind: str, config: Mapping[str, Any]) -> Graph:
    """A graph with one more layer behind the only one of a kind, if it has none there."""
    index = next(index for index, node in enumerate(graph.nodes) if node.kind == behind)
    before, name = graph.nodes[index], f"{graph.nodes[index].name}_{kind.lower()}"
    if any(node.kind == kind and before.name in node.inputs for node in graph.nodes):
        return graph
    added = Node((name,), kind, (before.name,), config, name)
    rest = (_with_inputs(node, {before.name: name}) for node in graph.nodes[index + 1 :])
    place = graph.layers.index(before.path) + 1
    layers = (*graph.layers[:place], (name,), *graph.layers[place:])
    return replace(graph, nodes=(*graph.nodes[: index + 1], added, *rest), layers=layers)


def _with_inputs(node: Node, names: Mapping[str, str]) -> Node:
    inputs = tuple(names.get(value, value) if isinstance(value, str) else value for value in node.inputs)
    return replace(node, inputs=inputs)


def _renumbered(config: Mapping[str, Any]) -> Any:
    """A configuration in which the names that Keras gives by itself are numbered as in a new process.

    Keras counts layers without a name over all models of a process: `conv2d_94` is `conv2d` in another one.
    """
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    for name, kind in _names(config):
        base, _, number = name.rpartition("_")
        if number.isdecimal() and base == snake_case(kind):
            numbers[base][name] = int(number)
        elif name == snake_case(kind):
            numbers[name][name] = 0
    renamed = {
        name: f"{base}_{index}" if index else base
        for base, given in numbers.items()
        for index, name in enumerate(sorted(given, key=given.__getitem__))
    }
    return _renamed(config, renamed)


def _names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, class) of every layer, also inside models inside the model."""
    for entry in config["layers"]:
        yield entry["config"]["name"], entry["class_name"]
        if "layers" in entry["config"]:
            yield from _names(entry["config"])


def _renamed(value: Any, names: Mapping[str, str], is_name: bool = False) -> Any:
    """JSON with other names of layers: under `name`, and first in a list that refers to a layer."""
    if isinstance(value, Mapping):
        return {key: _renamed(item, names, key in _NAMES) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names, is_name and index == 0) for index, item in enumerate(value)]
    return names.get(value, value) if is_name and isinstance(value, str) else value


_NAMES = ("name", "keras_history", "input_layers", "output_layers")
