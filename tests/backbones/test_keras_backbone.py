"""Networks of Keras compute what Keras computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from thaw.backbones import build, rebuild
from thaw.backbones.contract import Backbone
from thaw.backbones.keras.weighted import Weighted
from thaw.backbones.normalise import Normalise
from thaw.errors import BackboneError
from thaw.recipe import PreprocessingSettings, Recipe

pytestmark = [
    # Not `importorskip`, which would import Keras with whatever backend its configuration names.
    pytest.mark.skipif(find_spec("keras") is None, reason="needs the extra keras"),
    # Keras converts its own variables to arrays in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIZE = 80
QUICK = ["ResNet50", "Xception", "EfficientNetB0", "MobileNetV2", "MobileNetV3Small"]
SLOW = [
    "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2", "InceptionV3", "InceptionResNetV2",
    *(f"EfficientNetB{size}" for size in range(1, 8)),
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    "MobileNet", "MobileNetV3Large", "DenseNet121", "DenseNet169", "DenseNet201", "VGG16", "VGG19",
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base")), "NASNetLarge",
]  # fmt: skip
CHOSEN = {"InceptionV3", "DenseNet121", "EfficientNetV2B0", "ConvNeXtTiny"}


def _marked(name: str) -> Any:
    marks = [pytest.mark.slow, pytest.mark.ci] if name in CHOSEN else [pytest.mark.slow]
    return pytest.param(name, marks=marks)


def _named(module: str) -> str:
    return module.rpartition(".")[2]


class Pair:
    """A network of Keras and Thaw's backbone with the same weights.

    published: what Keras saved the published weights of; model: what it builds to use them.
    """

    def __init__(self, name: str) -> None:
        from thaw.keras_runtime import keras

        preprocessing = PreprocessingSettings(image_size=SIZE)
        self.backbone = build(Recipe(backbone=f"keras:{name}", weights="random", preprocessing=preprocessing))
        keras.utils.clear_session()
        self.model = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
        self.published = self.model
        if name.startswith("EfficientNetB"):
            self.model = _as_for_imagenet(keras, self.model)
        random = np.random.default_rng(0)
        for layer in self._layers(keras):
            arrays = [_random(variable, random) for variable in layer.weights]
            layer.set_weights(arrays)
            module = _module_of(self.backbone, layer.name)
            module.load_keras(arrays)
        self.published.set_weights(self.model.get_weights())

    def _layers(self, keras: Any, model: Any = None) -> Iterator[Any]:
        for layer in (model or self.model).layers:
            if isinstance(layer, keras.Model):
                yield from self._layers(keras, layer)
            elif layer.weights:
                yield layer


def _as_for_imagenet(keras: Any, model: Any) -> Any:
    """What Keras builds for `weights="imagenet"`: one more rescaling behind the normalisation."""

    def clone(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        if layer.__class__.__name__ != "Normalization":
            return copy
        scale = [1 / np.sqrt(value) for value in (0.229, 0.224, 0.225)]
        return keras.Sequential([copy, keras.layers.Rescaling(scale)])

    return keras.models.clone_model(model, clone_function=clone)


def _random(variable: Any, random: np.random.Generator) -> np.ndarray:
    if "variance" in variable.path:
        return random.uniform(0.5, 1.5, variable.shape).astype(np.float32)
    if variable.path.endswith("gamma"):
        return random.uniform(0.8, 1.2, variable.shape).astype(np.float32)
    inputs = max(1, int(np.prod(variable.shape[:-1])))
    return (random.standard_normal(variable.shape) * np.sqrt(2 / inputs)).astype(np.float32)


def _module_of(backbone: Backbone, layer: str) -> Weighted:
    found = [m for n, m in backbone.network.named_modules() if _named(n) == layer and isinstance(m, Weighted)]
    assert len(found) == 1, layer
    return found[0]


@pytest.fixture(scope="module", params=[*QUICK, *map(_marked, SLOW)])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def test_features_of_pixels_are_those_of_keras_and_its_preprocess_input(pair: Pair) -> None:
    facts = pair.backbone.facts
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    prepared = _preprocess_input(facts.architecture.removeprefix("keras:"))(pixels.astype(np.float32))
    with torch.no_grad():
        wanted = pair.model(torch.from_numpy(np.ascontiguousarray(prepared)), training=False).mean(dim=(1, 2))
        found = pair.backbone(Normalise(facts.mean, facts.std)(torch.from_numpy(pixels)))
    assert float((wanted - found).abs().max() / wanted.abs().max()) < 2e-5


def _preprocess_input(name: str) -> Any:
    from thaw.keras_runtime import keras

    modules = {
        "ResNet": "resnet", "MobileNetV3": "mobilenet_v3", "MobileNetV2": "mobilenet_v2", "MobileNet": "mobilenet",
        "InceptionResNet": "inception_resnet_v2", "Inception": "inception_v3", "Xception": "xception",
        "EfficientNetB": "efficientnet", "EfficientNetV2": "efficientnet_v2", "DenseNet": "densenet",
        "VGG16": "vgg16", "VGG19": "vgg19", "ConvNeXt": "convnext", "NASNet": "nasnet",
    }  # fmt: skip
    module = next(module for prefix, module in modules.items() if name.startswith(prefix))
    module = "resnet_v2" if name.startswith("ResNet") and name.endswith("V2") else module
    return getattr(keras.applications, module).preprocess_input


def test_weights_are_read_from_a_file_such_as_keras_published(pair: Pair, tmp_path: Path) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(tmp_path / "notop.h5", "w") as file:
        save_weights_to_hdf5_group(file, pair.published)
    recipe = Recipe(
        backbone=pair.backbone.facts.architecture,
        weights=str(tmp_path / "notop.h5"),
        preprocessing=PreprocessingSettings(image_size=SIZE),
    )
    loaded, expected = build(recipe).named_weights(), pair.backbone.named_weights()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


@pytest.mark.parametrize("count", [1, 3, 7, 19])
def test_layers_n_thaws_exactly_what_the_last_n_layers_of_keras_train(pair: Pair, count: int) -> None:
    model, cut = pair.model, pair.backbone.cut(f"layers:{count}")
    model.trainable = True
    for layer in model.layers[:-count]:
        layer.trainable = False
    wanted = sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)
    names = {path.split("/")[-2] for path in (variable.path for variable in model.trainable_weights)}
    found = {name: value for name, value in pair.backbone.network.named_parameters() if name in cut.trainable}
    assert sum(value.numel() for value in found.values()) == wanted
    assert names <= {part for name in found for part in name.split(".")}
    model.trainable = True


def test_a_rebuilt_network_needs_no_keras_and_is_the_same(pair: Pair) -> None:
    rebuilt = rebuild(pair.backbone.facts, "avg")
    rebuilt.load_named_weights(pair.backbone.named_weights())
    images = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(rebuilt(images), pair.backbone(images))
    assert rebuilt.blocks == pair.backbone.blocks
    assert rebuilt.cut("layers:7") == pair.backbone.cut("layers:7")


NAMES = {
    "ResNet50": "b85bf28e8b88",
    "Xception": "c215883a96db",
    "EfficientNetB0": "2fb68acbed96",
    "MobileNetV2": "38d7ffb87c90",
    "MobileNetV3Small": "b832c90582fb",
}
"""Digests of the names of all tensors; a bundle would no longer load if they changed."""


def test_tensors_keep_their_names_so_that_bundles_keep_loading(pair: Pair) -> None:
    name = pair.backbone.facts.architecture.removeprefix("keras:")
    if name not in NAMES:
        pytest.skip("its names follow the same rules")
    names = "\n".join(pair.backbone.named_weights())
    assert hashlib.sha256(names.encode()).hexdigest()[:12] == NAMES[name]


def test_a_size_that_keras_refuses_is_one_sentence() -> None:
    preprocessing = PreprocessingSettings(image_size=32)
    with pytest.raises(BackboneError, match="keras:InceptionV3: Keras does not build it for 32 pixels"):
        build(Recipe(backbone="keras:InceptionV3", weights="random", preprocessing=preprocessing))
