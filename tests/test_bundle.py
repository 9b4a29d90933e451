import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.bundle_files import with_new_sums
from tests.exports.classifiers import random_classifier
from thaw.bundle import read_bundle, write_bundle
from thaw.bundle_path import labels_of
from thaw.classifier.classifier import Classifier, new_head
from thaw.errors import BackboneError, BundleError
from thaw.evaluation.class_prior import weighted_decision
from thaw.recipe import DecodeSettings
from thaw.run_folder import RunFolder
from thaw.settings import assign


@pytest.fixture
def bundle(trained: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.model, tmp_path / "bundle"))


def changed(bundle: Path, key: str, value: object) -> Path:
    config = json.loads((bundle / "config.json").read_text())
    assign(config["thaw"], key, value)
    (bundle / "config.json").write_text(json.dumps(config))
    return with_new_sums(bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "regression"),
        ("task", "binary"),
        ("classes", []),
        ("classes", ["ok", "ok", "stain"]),
        ("classes", "abc"),
        ("classes", [1, 2, 3]),
        ("pooling", 7),
        ("facts.architecture", None),
        ("facts.pixels.size", "64"),
        ("facts.pixels.size", -1),
        ("facts.pixels.size", 10**30),
        ("facts.mean", []),
        ("facts.mean", [10**400, 0.5, 0.5]),
        ("decision.thresholds", [[3, 0.5]]),
        ("decision.thresholds", [[-1, 0.5]]),
        ("decision.costs", [[0, 1], [1, 0]]),
        ("decision.costs", [[0, 1, 1], [1, 0, 1], [1, 0]]),
        ("decision.costs", {"of_missing": [1.0, 2.0], "other": []}),
        ("decision.costs", {"of_missing": [1.0, 2.0, 3.0], "other": [[0, 3, 1.0]]}),
        ("review.max_distance", "far"),
        ("review.max_distance", None),
        ("review.min_probability", []),
        ("baseline.class_fractions", {"ok": 1.0}),
    ],
)
def test_a_bundle_with_a_malformed_configuration_is_a_clear_error(bundle: Path, key: str, value: object) -> None:
    with pytest.raises(BundleError, match="cannot be loaded"):
        read_bundle(changed(bundle, key, value))


def test_a_bundle_holds_costs_of_many_classes_in_little_room(tmp_path: Path) -> None:
    small = random_classifier()
    classes = [f"class {index}" for index in range(200)]
    classifier = Classifier(small.backbone, new_head(small.backbone, 200), classes, "multiclass", DecodeSettings())
    classifier.decision = weighted_decision(np.geomspace(0.1, 9.0, 200), "multiclass", "balanced")
    write_bundle(classifier, tmp_path / "bundle")
    config = tmp_path / "bundle" / "config.json"
    assert read_bundle(config.parent).decision == classifier.decision
    # Earlier releases say that they cannot read it; 40,000 costs would take 800 kB.
    assert json.loads(config.read_text())["thaw"]["format"] == 4 and config.stat().st_size < 50_000


def test_a_configuration_that_is_nested_without_end_is_a_clear_error(bundle: Path) -> None:
    (bundle / "config.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match="cannot be loaded"):
        read_bundle(with_new_sums(bundle))
    with pytest.raises(BundleError, match=r"config\.json: cannot be read"):
        labels_of(bundle)


def test_features_of_another_width_are_a_clear_error(bundle: Path) -> None:
    other = Path(__file__).parent / "bundles" / "0.1.0" / "model.safetensors"
    shutil.copyfile(other, bundle / "review.safetensors")
    with pytest.raises(BundleError, match="cannot be loaded"):
        read_bundle(with_new_sums(bundle))


@pytest.mark.parametrize(("key", "value"), [("task", "regression"), ("classes", [1, 2]), ("classes", "abc")])
def test_malformed_classes_are_named_before_anything_is_loaded(bundle: Path, key: str, value: object) -> None:
    with pytest.raises(BundleError, match=r"config\.json: cannot be read"):
        labels_of(changed(bundle, key, value))


@pytest.mark.parametrize("name", ["pretrained_cfg", "norm_layer", "features_only", "graph"])
def test_a_bundle_gives_timm_no_argument_that_weights_do_not_come_with(bundle: Path, name: str) -> None:
    with pytest.raises(BackboneError, match=f"unknown model_args {name}; known are pad_type"):
        read_bundle(changed(bundle, "facts.model_args", {"bn_eps": 1e-3, name: "x"}))


def test_a_bundle_keeps_the_arguments_that_its_weights_came_with(bundle: Path) -> None:
    classifier = read_bundle(changed(bundle, "facts.model_args", {"bn_eps": 1e-3}))
    assert classifier.backbone.facts.model_args == {"bn_eps": 1e-3}
