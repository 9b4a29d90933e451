"""The .keras file: plain Keras opens it, predicts with it and trains it further."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.exports.classifiers import CLASSES, random_classifier
from tests.full_disk import files_of_at_most
from thaw.bundle import read_bundle, write_bundle
from thaw.errors import ExportError, WriteError
from thaw.exports import keras_target
from thaw.exports.certificate import Case, certify, reference_cases
from thaw.exports.export import Exported, export_bundle
from thaw.exports.target import TOLERANCE
from thaw.keras_runtime import keras

# Keras converts tensors in a way that NumPy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("keras") / "bundle"
    write_bundle(random_classifier(), bundle)
    return bundle


@pytest.fixture(scope="module")
def exported(bundle: Path) -> Exported:
    return export_bundle(bundle, "keras", bundle.parent / "flowers.keras")


@pytest.fixture(scope="module")
def cases(bundle: Path) -> list[Case]:
    return reference_cases(read_bundle(bundle), bundle, at_model_size=True)


@pytest.fixture(scope="module")
def model(exported: Exported) -> Any:
    """For tests that do not change it."""
    return keras.saving.load_model(exported.path, safe_mode=True)


def test_an_export_is_one_certified_file_of_stock_layers(exported: Exported, model: Any, cases: list[Case]) -> None:
    assert exported.certificate.images == len(cases) and exported.certificate.max_difference <= TOLERANCE
    assert {file.name for file in exported.path.parent.iterdir()} == {"bundle", "flowers.keras"}
    assert all(layer is getattr(keras.layers, layer.__name__) for layer in map(type, model.layers))
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)


def test_pixels_may_be_bytes_or_floats_in_batches_of_any_size(model: Any, cases: list[Case]) -> None:
    images, expected = np.stack([case.image for case in cases]), np.stack([case.expected for case in cases])
    for given in (images, images.astype(np.float32)):
        for count in (1, len(images)):
            found = model.predict(given[:count], verbose=0)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:count], atol=TOLERANCE)


def test_the_file_says_what_its_outputs_and_inputs_are(exported: Exported) -> None:
    with zipfile.ZipFile(exported.path) as archive:
        assert archive.testzip() is None
        about = json.loads(archive.read("thaw.json"))
    assert about["classes"] == list(CLASSES) and about["task"] == "multiclass"
    assert "(N, 64, 64, 3)" in about["input"] and "the short side is" in about["input"]
    assert about["preprocessing"]["size"] == 64 and about["thaw_version"]
    assert "thaw.json" in exported.hint


def test_layers_keep_their_names_and_can_be_trained(exported: Exported, cases: list[Case]) -> None:
    model = keras.saving.load_model(exported.path)
    names = {layer.name: layer for layer in model.layers}
    assert isinstance(names["blocks_2_0_bn2"], keras.layers.BatchNormalization)
    assert isinstance(names["blocks_2_0_conv_dw"], keras.layers.DepthwiseConv2D)
    assert isinstance(names["normalise"], keras.layers.Normalization)
    assert names["head"].units == len(CLASSES) and model.layers[-1].name == "probabilities"
    for layer in model.layers:
        layer.trainable = layer.name in {"blocks_5_0_conv", "head"}
    images = np.stack([case.image for case in cases])
    labels = np.array([case.expected.argmax() for case in cases])
    before = {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.variables}
    model.compile(keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy")
    history = model.fit(images, labels, epochs=3, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    changed = {
        variable.path.partition("/")[0]
        for variable in model.variables
        if not np.array_equal(keras.ops.convert_to_numpy(variable), before[variable.path])
    }
    assert changed == {"blocks_5_0_conv", "head"}, "a frozen BatchNormalization keeps its statistics"


def test_the_example_of_the_documentation_runs(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flowers.keras").write_bytes(exported.path.read_bytes())
    Image.new("RGB", (90, 70), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    examples = [part.partition("```")[0] for part in DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1:]]
    assert len(examples) == 4
    names: dict[str, Any] = {"images": np.zeros((4, 64, 64, 3), np.uint8), "labels": np.array([0, 1, 2, 0])}
    for example in examples:
        exec(compile(example, str(DOCUMENT), "exec"), names)
    assert capsys.readouterr().out.startswith(CLASSES)
    assert names["model"].output_shape == (None, 5)


@pytest.mark.slow
@pytest.mark.ci
def test_a_file_with_other_weights_is_not_certified(exported: Exported, cases: list[Case], tmp_path: Path) -> None:
    model = keras.saving.load_model(exported.path)
    layer = model.get_layer("conv_stem")
    layer.set_weights([weight * 1.5 for weight in layer.get_weights()])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ExportError, match="differs by"):
        certify(keras_target.load(tmp_path / "model.keras"), cases)


@pytest.mark.slow
@pytest.mark.ci
def test_a_damaged_file_is_not_certified(exported: Exported, cases: list[Case], tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(exported.path.read_bytes()[:-2000])
    with pytest.raises(ExportError, match="Keras on torch cannot run the export"):
        certify(keras_target.load(file), cases)


def test_backends_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch, cases: list[Case]) -> None:
    shift = {"torch": 0.0, "tensorflow": 5e-4}
    monkeypatch.setattr(keras_target, "find_spec", lambda _: object())
    monkeypatch.setattr(
        keras_target, "_predicted", lambda file, images, backend: np.full((len(images), 3), shift[backend], np.float32)
    )
    with pytest.raises(ExportError, match="on TensorFlow and on PyTorch differ by"):
        keras_target.load(Path("model.keras"))(np.stack([case.image for case in cases]))


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    with files_of_at_most(100_000), pytest.raises(WriteError, match="cannot be written: the file is larger"):
        export_bundle(bundle, "keras", tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []
