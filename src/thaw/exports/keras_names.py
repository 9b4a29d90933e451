"""The names of Keras layers, derived from the modules of the traced network."""

from __future__ import annotations

import itertools
import re

from torch import fx


class Names:
    """Names of layers, derived from the paths of the modules: `layer4.1.conv2` becomes `layer4_1_conv2`.

    An operation that a module does between those of its children gets its own name added: `layer4_1_add`.
    """

    def __init__(self, graph: fx.Graph) -> None:
        nodes = [node for node in graph.nodes if node.op == "call_function"]
        paths = {path_of(node) for node in nodes}
        self._parents = {path[: end.start()] for path in paths for end in re.finditer(r"\.", path)} | {""}
        linear = [node for node in nodes if operation(node) == "linear"]
        self._chosen = {**dict.fromkeys(linear[-1:], "head"), **dict.fromkeys(outputs_of(graph), "probabilities")}
        self._used = set(self._chosen.values())

    def of(self, node: fx.Node, has_weights: bool, suffix: str) -> str:
        """A new name for a layer of this node."""
        if node in self._chosen and not suffix:
            return self._chosen.pop(node)
        path = path_of(node)
        parts = [path, operation(node), suffix]
        candidates = itertools.chain([parts], ([*parts, str(number)] for number in itertools.count(2)))
        if path and (has_weights or path not in self._parents):
            candidates = itertools.chain([[path, suffix]], candidates)
        names = ("_".join(re.findall(r"[A-Za-z0-9]+", " ".join(candidate))) for candidate in candidates)
        name = next(name for name in names if name not in self._used)
        self._used.add(name)
        return name


def operation(node: fx.Node) -> str:
    """The name of an ATen operation without its overload: `relu`, also where it works in place."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2].rstrip("_") if schema else getattr(node.target, "__name__", str(node.target))


def outputs_of(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that a graph returns."""
    return next(node for node in graph.nodes if node.op == "output").all_input_nodes


def path_of(node: fx.Node) -> str:
    """The path of the module that called an operation, within the network or the classifier."""
    stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
    path = str(stack[-1][0])
    for prefix in ("classifier.backbone.network.", "classifier."):
        path = path.removeprefix(prefix)
    return path
