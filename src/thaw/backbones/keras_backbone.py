"""Networks of Keras as backbones; Keras itself is needed to begin with one of its applications, never to run one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.facts import Facts, Pooling, TrainedHead
from thaw.backbones.keras import PREFIX, is_application
from thaw.backbones.keras.activations import as_in_keras_2
from thaw.backbones.keras.applications import load_application, reverse_channels
from thaw.backbones.keras.files import KerasFile, read_keras_file
from thaw.backbones.keras.graph import Graph, read_graph
from thaw.backbones.keras.network import KerasNetwork, build_network
from thaw.backbones.keras.own_model import DenseHead, OwnModel, divide
from thaw.backbones.keras.preprocessing import IMAGENET_COLOUR, NORMALISATIONS, Mode
from thaw.backbones.keras.published import fetch, look_up
from thaw.backbones.keras.stored import read_weights
from thaw.backbones.preprocessing import with_preprocessing
from thaw.backbones.random_weights import randomise
from thaw.data.geometry import PixelSpec
from thaw.errors import BackboneError, WeightsError
from thaw.recipe import PreprocessingSettings

_RANDOM = "random weights"
_USUAL_SIZE = 224
"""Pixels of a side where a model takes images of any size."""


def build(
    name: str,
    weights: str = "published",
    preprocessing: PreprocessingSettings | None = None,
    pooling: Pooling = "avg",
    seed: int = 0,
) -> Backbone:
    """Build a frozen backbone.

    Args:
        name: Of an application, such as `keras:ResNet50`, or a .keras or .h5 file with a model of the user's.
        weights: `published` (from Keras's cache or from where Keras downloads them; for a file its own), `random`, or a
            file of Keras.
        preprocessing: Overrides for the preprocessing of the family.
        pooling: How features are pooled.
        seed: Random weights depend only on it.

    Raises:
        BackboneError: The network is unknown or contains what Thaw does not compute.
        PackageError: Keras or h5py is not installed.
        WeightsError: The weights are missing, unreachable or do not fit.
    """
    if is_application(name):
        backbone = _application(name, weights, preprocessing, pooling)
    elif weights in ("published", "random"):
        backbone = _own_model(Path(name), preprocessing, pooling)
    else:
        raise WeightsError(f"--weights {weights}: {name} contains its own weights; leave --weights out")
    if weights == "random":
        randomise(backbone.network, torch.Generator().manual_seed(seed))
        # A head is worth nothing on other features.
        backbone.facts, backbone.trained_head = replace(backbone.facts, origin=_RANDOM), None
    return backbone


def rebuild(facts: Facts, pooling: Pooling) -> Backbone:
    """Build the network that `facts` describe, without Keras; the caller loads the weights."""
    network = build_network(Graph.from_json(facts.model_args["graph"]), pooling)
    return Backbone(network.network, network.blocks, facts, pooling, network.layers)


def _application(name: str, weights: str, preprocessing: PreprocessingSettings | None, pooling: Pooling) -> Backbone:
    published = look_up(name)
    wanted = preprocessing or PreprocessingSettings()
    application = load_application(published.name, wanted.image_size or published.size, published.mode)
    network = build_network(application.graph, pooling)
    origin = _RANDOM
    if weights != "random":
        file = read_keras_file(fetch(published) if weights == "published" else Path(weights))
        _load(network, file, application.config, {})
        origin = f"Keras, {file.file.name}, sha256 {file.sha256[:12]}"
    facts = _facts(published.name, published.mode, application.graph, network, published.size)
    facts = replace(facts, origin=origin, license=published.license)
    facts = with_preprocessing(facts, wanted, "from the recipe")
    return Backbone(network.network, network.blocks, facts, pooling, network.layers)


def _own_model(path: Path, preprocessing: PreprocessingSettings | None, pooling: Pooling) -> Backbone:
    file = read_keras_file(path)
    if file.config is None:
        raise WeightsError(
            f"{path}: contains weights without the model; name it, such as --backbone keras:ResNet50 --weights {path}"
        )
    try:
        whole = read_graph(file.config)
        model = divide(as_in_keras_2(whole) if file.keras_version.startswith("2.") else whole)
        size = _square(model.graph)
        graph = reverse_channels(model.graph) if model.mode == "caffe" else model.graph
        network = build_network(graph, pooling)
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from error
    head = _load(network, file, file.config, _head_shapes(model.head, network))
    without_head = "" if model.head else f", without its head: {model.why_no_head}"
    facts = _facts(model.family or "model", model.mode, graph, network, size)
    facts = replace(
        facts,
        origin=f"{path.name}, sha256 {file.sha256[:12]}{without_head}",
        preprocessing_origin=_preprocessing_origin(model, path),
    )
    facts = with_preprocessing(facts, preprocessing or PreprocessingSettings(), "from the recipe")
    trained = _trained_head(model.head, head, path) if model.head else None
    return Backbone(network.network, network.blocks, facts, pooling, network.layers, trained)


def _preprocessing_origin(model: OwnModel, path: Path) -> str:
    if model.mode == "inside":
        return f"{path.name} rescales by itself"
    return f"{model.mode}, as Keras's preprocess_input for {model.family}; {path.name} does not say"


def _square(graph: Graph) -> int:
    height, width = graph.size or (_USUAL_SIZE, _USUAL_SIZE)
    if height != width:
        raise BackboneError(f"it takes images of {height} x {width} pixels, and Thaw square ones only")
    return height


def _head_shapes(head: DenseHead | None, network: KerasNetwork) -> dict[tuple[str, ...], list[tuple[int, ...]]]:
    """Shapes of kernel and bias of each dense layer, by its path."""
    if head is None:
        return {}
    sizes = [network.blocks[-1].shape[0], *head.units, head.outputs]
    return {path: [pair, (pair[1],)] for path, pair in zip(head.paths, pairwise(sizes), strict=True)}


def _trained_head(head: DenseHead, arrays: Mapping[tuple[str, ...], Sequence[np.ndarray]], path: Path) -> TrainedHead:
    layers = []
    for layer in head.paths:
        kernel, bias = (torch.from_numpy(np.array(array, dtype=np.float32)) for array in arrays[layer])
        layers.append((kernel.T.contiguous(), bias))
    return TrainedHead(tuple(layers), head.pooling, head.dropout, path.name)


def _load(
    network: KerasNetwork,
    file: KerasFile,
    config: Mapping[str, Any],
    further: Mapping[tuple[str, ...], Sequence[tuple[int, ...]]],
) -> dict[tuple[str, ...], list[np.ndarray]]:
    """Load the weights of a network, and return those of further layers, whose shapes are given.

    config: The whole model that was saved.
    """
    wanted = {path: [tensor.shape for tensor in layer.keras_tensors()] for path, layer in network.weighted.items()}
    arrays = read_weights(file, config, {**wanted, **further})
    for path, layer in network.weighted.items():
        layer.load_keras(arrays[path])
    return {path: arrays[path] for path in further}


def _facts(name: str, mode: Mode, graph: Graph, network: KerasNetwork, size: int) -> Facts:
    normalisation = NORMALISATIONS[mode]
    return Facts(
        architecture=f"{PREFIX}{name}",
        # Keras resizes the whole image, as `image_dataset_from_directory` does.
        pixels=PixelSpec(size, 1.0, "squash", "bilinear", IMAGENET_COLOUR),
        mean=normalisation.mean,
        std=normalisation.std,
        width=network.blocks[-1].shape[0],
        classifier_name="predictions",
        license="not stated",
        origin="",
        preprocessing_origin=f"Keras's for {name}: {mode}",
        model_args={"graph": graph.to_json()},
        library="keras",
    )
