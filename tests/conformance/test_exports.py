"""Exports are certified for every network family, task, head and geometry.

By default on the smallest network only, which `tests/exports` exports to every target.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.exports.classifiers import random_classifier
from tests.exports.tracing import traced_once
from thaw.bundle import write_bundle
from thaw.classifier.classifier import Classifier
from thaw.exports.export import export_bundle
from thaw.exports.target import TOLERANCE
from thaw.recipe import PreprocessingSettings, Task

FAMILIES = [
    "mobilenetv3_small_100",
    "resnet18",
    "resnet50",
    "resnet101",
    "inception_v3",
    "legacy_xception",
    "xception41",
    *(f"efficientnet_b{size}" for size in range(8)),
    "efficientnet_lite0",
    "tf_efficientnet_b0",
    "tf_efficientnet_lite0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "tf_mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "convnext_tiny",
    "densenet121",
    "regnety_016",
]
SIZES = {"inception_v3": 80, "legacy_xception": 80, "xception41": 80}
NAMES = {
    "onnx": "model.onnx",
    "openvino": "model",
    "torch": "model.pt2",
    "keras": "model.keras",
    "triton": "model",
    "litert": "model.tflite",
}
OFTEN = [pytest.mark.slow, pytest.mark.ci]
ON_KERAS_OFTEN = ("inception_v3", "tf_efficientnet_b0")
"""Together they have most kinds of padding, pooling, activation and attention of the others."""

needs_litert = pytest.mark.skipif(
    find_spec("litert_torch") is None, reason='needs pip install "thaw-vision[litert]", on Linux'
)


def certified_difference(classifier: Classifier, to: str, folder: Path) -> float:
    write_bundle(classifier, folder / "bundle")
    return export_bundle(folder / "bundle", to, folder / NAMES[to]).certificate.max_difference


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_certified_on_onnx(name: str, tmp_path: Path) -> None:
    preprocessing = PreprocessingSettings(image_size=SIZES.get(name, 64))
    assert certified_difference(random_classifier(name, preprocessing), "onnx", tmp_path) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("to", ["openvino", "torch", pytest.param("litert", marks=needs_litert)])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_certified_on_the_other_engines(name: str, to: str, tmp_path: Path) -> None:
    preprocessing = PreprocessingSettings(image_size=SIZES.get(name, 64))
    assert certified_difference(random_classifier(name, preprocessing), to, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=OFTEN if name in ON_KERAS_OFTEN else [pytest.mark.slow]) for name in FAMILIES]
)
def test_every_family_is_certified_on_keras(name: str, tmp_path: Path) -> None:
    preprocessing = PreprocessingSettings(image_size=SIZES.get(name, 64))
    assert certified_difference(random_classifier(name, preprocessing), "keras", tmp_path) <= TOLERANCE


@pytest.fixture(scope="module")
def bundle_on_all_stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle whose exports to several targets share their graph, in everything unlike that of `tests/exports`."""
    bundle = tmp_path_factory.mktemp("all-stages") / "bundle"
    preprocessing = PreprocessingSettings(image_size=65, crop_pct=0.9, crop_mode="squash", interpolation="bilinear")
    write_bundle(random_classifier(preprocessing=preprocessing, task="binary", hidden=(8,), features="all"), bundle)
    with traced_once():
        yield bundle


@pytest.mark.parametrize(
    "to",
    [
        "torch",
        *(pytest.param(to, marks=OFTEN) for to in ("onnx", "openvino", "keras", "triton")),
        pytest.param("litert", marks=[pytest.mark.slow, needs_litert]),
    ],
)
def test_a_head_on_all_stages_is_certified_on_every_target(to: str, bundle_on_all_stages: Path, tmp_path: Path) -> None:
    certificate = export_bundle(bundle_on_all_stages, to, tmp_path / NAMES[to]).certificate
    assert certificate.max_difference <= TOLERANCE


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(
    ("task", "hidden", "crop_mode", "interpolation", "to"),
    [
        ("binary", (), "squash", "bilinear", "torch"),
        ("multilabel", (8,), "border", "lanczos", "openvino"),
        ("binary", (8,), "border", "lanczos", "keras"),
        ("multilabel", (), "squash", "bilinear", "keras"),
    ],
)
def test_every_task_head_and_geometry_is_certified(
    task: Task, hidden: tuple[int, ...], crop_mode: str, interpolation: str, to: str, tmp_path: Path
) -> None:
    preprocessing = PreprocessingSettings.model_validate(
        {"image_size": 65, "crop_pct": 0.9, "crop_mode": crop_mode, "interpolation": interpolation}
    )
    classifier = random_classifier(preprocessing=preprocessing, task=task, hidden=hidden)
    assert certified_difference(classifier, to, tmp_path) < TOLERANCE / 10
