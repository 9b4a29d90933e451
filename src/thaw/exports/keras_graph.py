"""A traced network as a Keras model: the values between its operations, and the names of its layers.

PyTorch keeps the maps of a convolution as (N, C, H, W), Keras as (N, H, W, C). Each value therefore knows which axis of
the Keras tensor holds which axis of PyTorch's, so that a permutation costs nothing and no operation has to guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind

from thaw.errors import ExportError, first_line
from thaw.exports.keras_names import Names, operation, outputs_of, path_of
from thaw.keras_runtime import keras

MAPS_LAST = (0, 3, 1, 2)
"""The axes of maps (N, C, H, W) that Keras keeps as (N, H, W, C)."""

CHANNELS_LAST: Any = {"data_format": "channels_last"}
"""The setting of layers that work on maps, whatever default the user has configured."""

DTYPE = "float32"
"""Of every layer, whatever default the user has configured."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the network.

    Attributes:
        tensor: The symbolic tensor of Keras.
        axes: `axes[i]` is the axis of `tensor` that holds axis i of PyTorch's tensor. Axis 0 is the batch.
        is_nonnegative: Whether no element can be below 0, so that a maximum may be padded with zeros.
        mean: What is still to be subtracted, by a division that follows, which normalises in one layer.
    """

    tensor: Any
    axes: tuple[int, ...]
    is_nonnegative: bool = False
    mean: Tensor | None = None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of PyTorch's tensor; `None` for the batch."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)

    def dim(self, dim: int) -> int:
        """The number of an axis that may be counted from the end."""
        return dim % len(self.axes)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the images; a parameter of the network, or computed from one, can be trained."""

    tensor: Tensor
    is_parameter: bool


Ints = int | Sequence[int]
"""A number for both axes of maps, or one for each."""


def pair(value: Ints) -> tuple[int, int]:
    """The numbers for height and width."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


@dataclass(frozen=True)
class Call:
    """One operation of the graph, while its counterpart in Keras is built.

    Attributes:
        node: The node of the traced graph.
        names: Gives every layer its name.
    """

    node: fx.Node
    names: Names

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of PyTorch's result; `None` for the batch."""
        return tuple(size if isinstance(size, int) else None for size in self.node.meta["val"].shape)

    def layer(
        self, kind: str, inputs: Any, weights: Sequence[Tensor | None] = (), suffix: str = "", **settings: Any
    ) -> Any:
        """Apply a new layer, `keras.layers.<kind>`, with these weights, of which `None` are left out."""
        given = [weight.detach().cpu().numpy() for weight in weights if weight is not None]
        name = self.names.of(self.node, bool(given), suffix)
        layer = getattr(keras.layers, kind)(name=name, dtype=DTYPE, **settings)
        outputs = layer(inputs)
        if given:
            layer.set_weights(given)
        return outputs

    def laid_out(self, value: Value, axes: tuple[int, ...]) -> Value:
        """The same value with its axes in this order."""
        if value.axes == axes:
            return value
        if axes[0] != 0 or value.axes[0] != 0:
            raise NotImplementedError("the batch is not the first axis")
        order = sorted(range(len(axes)), key=axes.__getitem__)
        dims = tuple(value.axes[index] for index in order[1:])
        return replace(value, tensor=self.layer("Permute", value.tensor, suffix="permute", dims=dims), axes=axes)

    def in_order(self, value: Value) -> Value:
        """The same value with its axes in PyTorch's order."""
        return self.laid_out(value, tuple(range(len(value.axes))))

    def maps(self, value: Value) -> Value:
        """A value (N, C, H, W), laid out as Keras layers take it."""
        if len(value.axes) != 4:
            raise NotImplementedError(f"it takes a tensor of {len(value.axes)} dimensions")
        return self.laid_out(value, MAPS_LAST)

    def with_same_axes(self, first: Value, second: Value) -> tuple[Value, Value]:
        """Two values with their axes in the same order."""
        if len(first.axes) != len(second.axes):
            raise NotImplementedError("its inputs have different numbers of dimensions")
        return first, self.laid_out(second, first.axes)

    def zero_padded(self, tensor: Any, pads: Sequence[tuple[int, int]]) -> Any:
        """A tensor (N, H, W, C) with this many zeros above and below, left and right."""
        if not any(map(any, pads)):
            return tensor
        return self.layer("ZeroPadding2D", tensor, suffix="pad", padding=tuple(pads), **CHANNELS_LAST)

    def function(self, kind: str, *inputs: Any, suffix: str = "", **settings: Any) -> Any:
        """Apply `keras.ops.<kind>`, for what no layer does."""
        outputs = getattr(keras.ops, kind)(*inputs, **settings)
        # Keras names functions by counting them in this process, and a layer may have such a name.
        outputs._keras_history.operation.name = self.names.of(self.node, False, suffix)
        return outputs


def _is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema and schema.is_mutable)


def model_of(program: torch.export.ExportedProgram, operations: Mapping[str, Callable[..., Value]], name: str) -> Any:
    """Build the Keras model of a traced network.

    Args:
        program: The network at one size, from images (N, S, S, 3) to probabilities, not decomposed.
        operations: For each ATen operation, the function that builds its counterpart. It is called with the `Call` and
            the operation's own arguments.
        name: The name of the model.

    Raises:
        ExportError: An operation has no counterpart.
    """
    graph, values = program.graph, _constants(program)
    (image_node,) = (node for node in graph.nodes if node.op == "placeholder" and node not in values)
    images = keras.Input(image_node.meta["val"].shape[1:], dtype=DTYPE, name="images")
    values[image_node] = Value(images, tuple(range(4)))
    names = Names(graph)
    for node in _needed(graph):
        result = _result(Call(node, names), values, operations)
        if _is_in_place(node):
            changed = values[node.args[0]]
            values.update({other: result for other, value in values.items() if value is changed})
        values[node] = result
    (output,) = outputs_of(graph)
    return keras.Model(images, Call(output, names).in_order(values[output]).tensor, name=name)


def _constants(program: torch.export.ExportedProgram) -> dict[Any, Any]:
    """The parameters, buffers and constants of a program, by their nodes."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    tensors = {**program.constants, **program.state_dict}
    return {
        nodes[spec.arg.name]: Constant(tensors[spec.target], spec.kind is InputKind.PARAMETER)
        for spec in program.graph_signature.input_specs
        if spec.target is not None
    }


def _needed(graph: fx.Graph) -> list[fx.Node]:
    """The operations that the output depends on, in their order."""
    needed = set(outputs_of(graph))
    for node in reversed(graph.nodes):
        if node in needed or _is_in_place(node):
            needed.update(node.all_input_nodes, [node])
    return [node for node in graph.nodes if node in needed and node.op == "call_function"]


def _result(call: Call, values: Mapping[fx.Node, Any], operations: Mapping[str, Callable[..., Value]]) -> Any:
    node = call.node
    if isinstance(node.meta.get("val"), torch.SymInt):
        return None  # The number of images, which Keras knows.
    arguments: Any = fx.map_arg(node.args, values.__getitem__)
    keywords: Any = fx.map_arg(node.kwargs, values.__getitem__)
    given = [values[item] for item in node.all_input_nodes]
    if all(isinstance(value, Constant) for value in given):
        return _computed(node, arguments, keywords, any(value.is_parameter for value in given))
    where = f"export --to keras: {node.target} in {path_of(node) or 'the classifier'}"
    if operation(node) not in operations:
        raise ExportError(f"{where} has no counterpart in Keras; export to onnx or torch")
    try:
        return operations[operation(node)](call, *arguments, **keywords)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ExportError(
            f"{where} cannot be expressed in Keras ({first_line(error)}); export to onnx or torch"
        ) from error


def _computed(node: fx.Node, arguments: Any, keywords: Any, is_parameter: bool) -> Constant:
    """The result of an operation on constants alone."""

    def tensor(item: Any) -> Any:
        if isinstance(item, (list, tuple)):
            return type(item)(tensor(part) for part in item)
        return item.tensor if isinstance(item, Constant) else item

    with torch.no_grad():
        result = node.target(*tensor(arguments), **{key: tensor(item) for key, item in keywords.items()})  # type: ignore[operator]
    return Constant(result, is_parameter)
