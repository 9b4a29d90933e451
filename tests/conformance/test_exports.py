"""Exports are certified for every network family, task, head and geometry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports.classifiers import random_classifier
from thaw.bundle import write_bundle
from thaw.classifier.classifier import Classifier
from thaw.exports.certificate import TOLERANCE
from thaw.exports.export import export_bundle
from thaw.recipe import PreprocessingSettings, Task

QUICK = ["mobilenetv3_small_100"]
SLOW = [
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
NAMES = {"onnx": "model.onnx", "openvino": "model", "torch": "model.pt2", "triton": "model"}


def certified_difference(classifier: Classifier, to: str, folder: Path) -> float:
    write_bundle(classifier, folder / "bundle")
    return export_bundle(folder / "bundle", to, folder / NAMES[to]).certificate.max_difference


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_family_is_certified_on_onnx(name: str, tmp_path: Path) -> None:
    preprocessing = PreprocessingSettings(image_size=SIZES.get(name, 64))
    assert certified_difference(random_classifier(name, preprocessing), "onnx", tmp_path) <= TOLERANCE


@pytest.mark.parametrize("to", ["openvino", "torch"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in [*QUICK, *SLOW]])
def test_every_family_is_certified_on_the_other_engines(name: str, to: str, tmp_path: Path) -> None:
    preprocessing = PreprocessingSettings(image_size=SIZES.get(name, 64))
    assert certified_difference(random_classifier(name, preprocessing), to, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(("task", "hidden"), [("binary", ()), ("multilabel", (8,))])
def test_every_task_and_head_is_certified(task: Task, hidden: tuple[int, ...], tmp_path: Path) -> None:
    assert certified_difference(random_classifier(task=task, hidden=hidden), "torch", tmp_path) < TOLERANCE / 10


@pytest.mark.parametrize(
    "to",
    ["torch", "onnx", *(pytest.param(to, marks=[pytest.mark.slow, pytest.mark.ci]) for to in ("openvino", "triton"))],
)
def test_a_head_on_all_stages_is_certified_on_every_target(to: str, tmp_path: Path) -> None:
    assert certified_difference(random_classifier(features="all"), to, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(
    ("crop_mode", "interpolation", "to"), [("squash", "bilinear", "torch"), ("border", "lanczos", "openvino")]
)
def test_every_geometry_is_certified(crop_mode: str, interpolation: str, to: str, tmp_path: Path) -> None:
    preprocessing = PreprocessingSettings.model_validate(
        {"image_size": 65, "crop_pct": 0.9, "crop_mode": crop_mode, "interpolation": interpolation}
    )
    assert certified_difference(random_classifier(preprocessing=preprocessing), to, tmp_path) <= TOLERANCE
