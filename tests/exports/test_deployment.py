"""What an export target is built from: a graph, and images with the probabilities that it must give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.exports.classifiers import random_classifier
from thaw.bundle import write_bundle
from thaw.data.geometry import PixelSpec
from thaw.exports.certificate import certify, reference_cases
from thaw.exports.deployment import deployment_at_size, deployment_of, resizing_of
from thaw.exports.target import TOLERANCE
from thaw.recipe import DecodeSettings


@pytest.mark.slow
@pytest.mark.ci
def test_a_graph_at_the_models_size_gives_thaws_probabilities_for_resized_images(tmp_path: Path) -> None:
    classifier = random_classifier()
    write_bundle(classifier, tmp_path / "bundle")
    cases = reference_cases(classifier, tmp_path / "bundle", at_model_size=True)
    assert {case.image.shape for case in cases} == {(64, 64, 3)}
    deployment = deployment_at_size(classifier, tmp_path / "bundle")
    module = deployment.program.module()

    def infer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    assert certify(infer, cases).max_difference <= TOLERANCE
    assert certify(infer, cases[:1]).images == 1
    assert "(N, 64, 64, 3)" in deployment.metadata["input"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (PixelSpec(224, 0.875, "center", "bicubic"), "the short side is 256 pixels (bicubic"),
        (PixelSpec(224, 0.875, "center", "bicubic"), "then take the central 224 x 224 pixels"),
        (PixelSpec(224, 1.0, "squash", "bilinear"), "both sides are 224 pixels (bilinear"),
        (PixelSpec(224, 1.0, "border", "lanczos", (1, 2, 3)), "pixels beyond the image are (1, 2, 3)"),
        (PixelSpec(224, 1.25, "center", "bilinear"), "pixels beyond the image are (0, 0, 0)"),
    ],
)
def test_resizing_is_described_in_words(spec: PixelSpec, expected: str) -> None:
    assert expected in resizing_of(spec)
    assert ("beyond" in resizing_of(spec)) == ("beyond" in expected)


@pytest.mark.parametrize("white_level", [None, 4095.0])
def test_what_is_white_in_16_bit_images_travels_with_an_export(tmp_path: Path, white_level: float | None) -> None:
    classifier = random_classifier()
    classifier.decode = DecodeSettings(white_level=white_level)
    write_bundle(classifier, tmp_path / "bundle")
    for describe in (deployment_of, deployment_at_size):
        metadata = describe(classifier, tmp_path / "bundle").metadata
        assert json.loads(metadata["preprocessing"])["decode"]["white_level"] == white_level
        assert metadata["input"].endswith("value * 255 / 4095, rounded") == (white_level is not None)
