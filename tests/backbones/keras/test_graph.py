"""Configurations of Keras 3 and 2 are read as data into one graph."""

from __future__ import annotations

import json
from typing import Any

import pytest

from thaw.backbones.keras.graph import Graph, read_graph
from thaw.errors import BackboneError


def layer(kind: str, name: str, *inputs: str | float, **config: Any) -> dict[str, Any]:
    """An entry as Keras 3 writes it."""
    tensors = [
        {"class_name": "__keras_tensor__", "config": {"keras_history": [value, 0, 0]}}
        if isinstance(value, str)
        else value
        for value in inputs
    ]
    calls = [{"args": tensors if len(tensors) < 2 or 0.5 in inputs else [tensors], "kwargs": {"mask": None}}]
    return {
        "module": "keras.layers",
        "class_name": kind,
        "name": name,
        "config": {"name": name, "trainable": True, "dtype": "float32", "kernel_initializer": "x", **config},
        "inbound_nodes": calls if inputs else [],
    }


def model(*layers: dict[str, Any], output: str = "", **more: Any) -> dict[str, Any]:
    outputs = [output or layers[-1]["name"], 0, 0]
    return {
        "class_name": "Functional",
        "config": {"layers": list(layers), "input_layers": [["in", 0, 0]], "output_layers": [outputs], **more},
    }


INPUT = layer("InputLayer", "in", batch_shape=[None, 32, 48, 3])


def test_layers_become_nodes() -> None:
    graph = read_graph(
        model(
            INPUT,
            layer("Conv2D", "left", "in", filters=3),
            layer("Conv2D", "right", "in", filters=3),
            layer("Add", "sum", "left", "right"),
        )
    )
    assert [node.name for node in graph.nodes] == ["left", "right", "sum"]
    assert graph.nodes[2].inputs == ("left", "right")
    assert graph.nodes[0].config == {"filters": 3}
    assert (graph.input, graph.output, graph.size) == ("input", "sum", (32, 48))
    assert graph.layers == (("in",), ("left",), ("right",), ("sum",))
    assert Graph.from_json(graph.to_json()) == graph


def test_an_operation_with_a_number_is_a_node_but_no_layer() -> None:
    operation = {**layer("Add", "add", "in", 0.5), "module": "keras.src.ops.numpy"}
    graph = read_graph(model(INPUT, operation))
    assert graph.nodes[0].kind == "ops.Add"
    assert graph.nodes[0].inputs == ("input", 0.5)
    assert graph.layers == (("in",),)


def test_a_graph_is_the_same_once_written_as_json_and_read() -> None:
    means = {"class_name": "__tensor__", "config": {"value": [[[[-103.9, -116.8, -123.7]]]]}}
    operation = layer("Add", "add", "in", means, 0.5)
    graph = read_graph(model(INPUT, {**operation, "module": "keras.src.ops.numpy"}))
    assert graph.nodes[0].inputs == ("input", (-103.9, -116.8, -123.7), 0.5)
    read = json.loads(json.dumps(graph.to_json()))
    assert repr(read) == repr(graph.to_json())
    assert Graph.from_json(read) == graph


def test_what_the_output_does_not_depend_on_is_left_out() -> None:
    graph = read_graph(model(INPUT, layer("Conv2D", "used", "in"), layer("Conv2D", "unused", "in"), output="used"))
    assert [node.name for node in graph.nodes] == ["used"]


def test_the_layers_of_a_model_inside_are_counted_where_it_has_every_convolution() -> None:
    base = {**model(INPUT, layer("Conv2D", "conv", "in"), layer("ReLU", "relu", "conv")), "name": "base"}
    base["config"]["name"] = "base"
    base["inbound_nodes"] = layer("x", "x", "in")["inbound_nodes"]
    graph = read_graph(model(INPUT, base, layer("Dense", "dense", "base")))
    assert [node.path for node in graph.nodes] == [("base", "conv"), ("base", "relu"), ("dense",)]
    assert graph.nodes[2].inputs == ("base/relu",)
    assert graph.layers == (("base", "in"), ("base", "conv"), ("base", "relu"))


def test_a_sequence_and_the_calls_of_keras_2() -> None:
    first = {"class_name": "Conv2D", "config": {"name": "a", "batch_input_shape": [None, 8, 8, 3]}}
    sequence = {
        "class_name": "Sequential",
        "config": {"layers": [first, {"class_name": "ReLU", "config": {"name": "b"}}]},
    }
    graph = read_graph(sequence)
    assert [(node.name, node.inputs) for node in graph.nodes] == [("a", ("input",)), ("b", ("a",))]
    assert graph.size == (8, 8)
    second = {**layer("Conv2D", "a"), "inbound_nodes": [[["in", 0, 0, {}]]]}
    both = {**layer("Add", "b"), "inbound_nodes": [[["in", 0, 0, {}], ["a", 0, 0, {}]]]}
    graph = read_graph(model(INPUT, second, both))
    assert [(node.name, node.inputs) for node in graph.nodes] == [("a", ("input",)), ("b", ("input", "a"))]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"class_name": "MyModel", "config": {"layers": []}}, "'MyModel' is code, which is never executed"),
        ({"config": {}}, "not the configuration of a Keras model"),
        (model(INPUT, {**layer("ReLU", "a", "in"), "inbound_nodes": [{}, {}]}), "'a' is called 2 times"),
        (model(INPUT, layer("ReLU", "a", "b"), layer("ReLU", "b", "a")), "'a' takes the output of 'b', which is not"),
        (model(INPUT, input_layers=[["in", 0, 0], ["other", 0, 0]]), "2 inputs, only one"),
    ],
)
def test_what_is_no_graph_is_refused(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(BackboneError) as error:
        read_graph(value)
    assert reason in str(error.value)
