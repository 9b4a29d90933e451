"""Weights in a file of Keras, found for the layers of a model in whichever way that version of Keras arranged them.

Keras 3, and Keras 2.12 and later in .keras archives, name the place of a layer after its class and its number among the
layers of that class: `layers/functional/layers/conv2d_3/vars/0`. Older files name it after the layer and the weight:
`block1_conv1/block1_conv1/kernel:0`; the weights of a model inside the model are then one list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thaw.backbones.keras.files import CONTAINERS, KerasFile, open_weights
from thaw.backbones.keras.hdf5 import Dataset, Group
from thaw.backbones.weights import check_finite
from thaw.errors import WeightsError
from thaw.formats import count, listed

LayerPath = tuple[str, ...]
"""Names of the models that contain a layer, outermost first, without the model itself; then that of the layer."""

Shape = tuple[int, ...]

_Found = Mapping[LayerPath, Sequence[Dataset]]

_NEVER_TRAINED = {"BatchNormalization": 2, "SyncBatchNormalization": 2, "Normalization": 3}
"""How many of the last weights of a layer are statistics, which older files list behind all that is trained."""

_DEEPEST = 20


@dataclass(frozen=True)
class _Layer:
    """A layer, or a model inside the model."""

    path: LayerPath
    kind: str
    is_trainable: bool
    layers: tuple[_Layer, ...]

    @property
    def name(self) -> str:
        return self.path[-1]

    def leaves(self) -> Iterator[_Layer]:
        """The layers in it, or itself."""
        if not self.layers:
            yield self
        for layer in self.layers:
            yield from layer.leaves()


def read_weights(
    file: KerasFile, model: Mapping[str, Any], wanted: Mapping[LayerPath, Sequence[Shape | None]]
) -> dict[LayerPath, list[np.ndarray]]:
    """Read the weights of layers.

    The layers of a file that describes its own model are found by name. Those of an older file of weights alone are
    assigned in order, as Keras does, because their names have changed between versions; and by name, where the file has
    further layers.

    Args:
        file: The file.
        model: The description of the whole model that was saved, with layers that are not wanted: usually
            `file.config`.
        wanted: For each layer the shapes of Keras's `layer.weights`, in that order; `None` accepts any, and a layer
            without weights, such as a LayerNormalization without scale and center, has none.

    Returns:
        The arrays of each wanted layer in the order of Keras's `layer.weights`, such as kernel (height, width, in, out)
        and bias.

    Raises:
        PackageError: h5py is not installed.
        WeightsError: The file is damaged, or does not fit the model; it names the layers.
    """
    layers = _layers(model, (), file)
    # A file says nothing about layers that have no weights.
    without_weights: dict[LayerPath, list[np.ndarray]] = {path: [] for path, shapes in wanted.items() if not shapes}
    wanted = {path: shapes for path, shapes in wanted.items() if shapes}
    with open_weights(file) as group:
        if file.layout == "objects":
            candidates: list[_Found] = [dict(_by_class(group, layers))]
        else:
            candidates = list(_by_layer(group, layers, wanted, has_own_names=file.config is not None))
        problems = [_problems(found, wanted) for found in candidates]
        found, wrong = min(zip(candidates, problems, strict=True), key=lambda pair: len(pair[1]))
        if wrong:
            layers_text = count(len(wanted), "layer")
            raise WeightsError(f"{file.file}: {len(wrong)} of {layers_text} do not fit this network: {listed(wrong)}")
        arrays = {path: [dataset.read() for dataset in found[path]] for path in wanted}
    tensors = {
        f"{'/'.join(path)}, weight {index}": torch.from_numpy(array)
        for path, layer in arrays.items()
        for index, array in enumerate(layer)
        if array.dtype.kind == "f"
    }
    check_finite(tensors, str(file.file))
    return without_weights | arrays


def _problems(found: _Found, wanted: Mapping[LayerPath, Sequence[Shape | None]]) -> list[str]:
    """What does not fit, one phrase for each layer."""
    problems = []
    for path, shapes in wanted.items():
        name = "/".join(path)
        if path not in found:
            problems.append(f"{name} is not in the file")
            continue
        stored = [dataset.shape for dataset in found[path]]
        if len(stored) != len(shapes):
            problems.append(f"{name} has {count(len(stored), 'weight')}, not {len(shapes)}")
        elif any(shape not in (None, other) for shape, other in zip(shapes, stored, strict=True)):
            problems.append(f"{name} has weights of shape {_text(stored)}, not {_text(shapes)}")
    return problems


def _layers(model: Mapping[str, Any], path: LayerPath, file: KerasFile) -> tuple[_Layer, ...]:
    """The layers of a model in Keras's order; operations such as `x + 3.0` are no layers."""
    try:
        entries = model["config"]["layers"]
        layers = [entry for entry in entries if not str(entry.get("module") or "").startswith("keras.src.ops.")]
        if len(path) > _DEEPEST:
            raise WeightsError(f"{file.file}: has more than {_DEEPEST} models inside each other; the file is damaged")
        return tuple(_layer(entry, path, file) for entry in layers)
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file.file}: the model is not a Functional or Sequential model of Keras") from error


def _layer(entry: Mapping[str, Any], path: LayerPath, file: KerasFile) -> _Layer:
    config = entry["config"]
    own = (*path, str(entry.get("name") or config["name"]))
    inner = _layers(entry, own, file) if isinstance(config.get("layers"), list) else ()
    return _Layer(own, str(entry["class_name"]), config.get("trainable") is not False, inner)


def _by_class(group: Group, layers: Sequence[_Layer]) -> Iterator[tuple[LayerPath, list[Dataset]]]:
    """The arrays of each layer, found by its class and its number among the layers of that class."""
    container = next((name for name in CONTAINERS if group.group([name])), CONTAINERS[0])
    inside = group.group([container])
    if inside is None:
        return
    seen: Counter[str] = Counter()
    numbered = _numbered(inside) if container != CONTAINERS[0] else {}
    for layer in layers:
        kind = snake_case(layer.kind)
        number = seen[kind]
        seen[kind] += 1
        place = f"{kind}_{number}" if number else kind
        # Keras 2.13 counted a layer with weights twice, so that numbers are left out.
        if numbered and number < len(numbered.get(kind, ())):
            place = numbered[kind][number]
        stored = inside.group([place])
        if stored is None:
            continue
        if layer.layers:
            yield from _by_class(stored, layer.layers)
        elif (variables := stored.group(["vars"])) is not None:
            arrays = [variables.dataset([str(index)]) for index in range(len(variables.names()))]
            yield layer.path, [array for array in arrays if array is not None]


def _numbered(group: Group) -> dict[str, list[str]]:
    """The names in a group by what precedes their number, in numerical order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in group.names():
        match = re.fullmatch(r"(.+?)(?:_(\d+))?", name)
        if match:
            found.setdefault(match.group(1), []).append((int(match.group(2) or 0), name))
    return {kind: [name for _, name in sorted(names)] for kind, names in found.items()}


def _by_layer(
    group: Group, layers: Sequence[_Layer], wanted: Mapping[LayerPath, Sequence[Shape | None]], has_own_names: bool
) -> Iterator[_Found]:
    """The arrays of each layer, found by the names of layers or by their order; the more trustworthy one first."""
    saved: dict[str, list[tuple[str, Dataset]]] = {}
    for name in group.texts("layer_names") or ():
        inside = group.group(name.split("/"))
        names = (inside.texts("weight_names") if inside else None) or []
        arrays = [(weight, inside.dataset(weight.split("/"))) for weight in names] if inside else []
        if arrays:
            saved[name] = [(weight, array) for weight, array in arrays if array is not None]
    expected = [layer for layer in layers if any(leaf.path in wanted for leaf in layer.leaves())]
    by_name = {layer.name: layer.name for layer in expected if layer.name in saved}
    by_order = {layer.name: name for layer, name in zip(expected, saved, strict=False)}
    assignments = [by_name, by_order] if has_own_names else [by_order, by_name]
    for assignment in assignments if len(expected) == len(saved) else [by_name]:
        yield {
            path: arrays
            for layer in expected
            if layer.name in assignment
            for path, arrays in _of_layer(layer, saved[assignment[layer.name]], wanted)
        }


def _of_layer(
    layer: _Layer, saved: Sequence[tuple[str, Dataset]], wanted: Mapping[LayerPath, Sequence[Shape | None]]
) -> Iterator[tuple[LayerPath, list[Dataset]]]:
    """The arrays of a layer, or of every layer of a model inside the model."""
    if not layer.layers:
        yield layer.path, [array for _, array in saved]
        return
    groups: dict[str, list[Dataset]] = {}
    for name, array in saved:
        groups.setdefault(name.rpartition("/")[0], []).append(array)
    leaves = [leaf for leaf in layer.leaves() if leaf.path in wanted]
    named = {leaf.path: _scope_of(leaf.path, groups) for leaf in leaves}
    scopes = [scope for scope in named.values() if scope is not None]
    if len(set(scopes)) == len(leaves):
        yield from ((path, groups[scope]) for path, scope in named.items() if scope is not None)
        return
    # All that is trained comes first, then the statistics; within both in the order of the layers.
    places = [
        (leaf.path, index, leaf.is_trainable and index < len(wanted[leaf.path]) - _NEVER_TRAINED.get(leaf.kind, 0))
        for leaf in leaves
        for index in range(len(wanted[leaf.path]))
    ]
    ordered = [place for place in places if place[2]] + [place for place in places if not place[2]]
    if len(ordered) == len(saved):
        found = {(path, index): array for (path, index, _), (_, array) in zip(ordered, saved, strict=True)}
        yield from (
            (leaf.path, [found[leaf.path, index] for index in range(len(wanted[leaf.path]))]) for leaf in leaves
        )


def _scope_of(path: LayerPath, scopes: Mapping[str, object]) -> str | None:
    """The scope, such as `xception/block1_conv1`, that belongs to a layer and to no other."""
    for length in range(len(path), 0, -1):
        suffix = "/".join(path[-length:])
        matching = [scope for scope in scopes if scope == suffix or scope.endswith(f"/{suffix}")]
        if matching:
            return matching[0] if len(matching) == 1 else None
    return None


def snake_case(kind: str) -> str:
    """Keras's name for a class, as `separable_conv2d` for `SeparableConv2D`."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _text(shapes: Sequence[Shape | None]) -> str:
    return " and ".join("any" if shape is None else " x ".join(map(str, shape)) or "()" for shape in shapes)
