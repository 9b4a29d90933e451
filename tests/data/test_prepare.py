from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.data.dataset import Dataset
from thaw.data.duplicates import NearDuplicate
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import DataPreparation
from thaw.progress import NullReporter
from thaw.recipe import DecodeSettings, SplitSettings


def test_equal_bytes_under_two_labels_are_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Equal bytes are found without the search for near-duplicates, which takes a second.
    monkeypatch.setattr(PixelStore, "duplicates", lambda *arguments: [])
    for number, name in enumerate(("crack", "ok")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for image in range(4):
            pixels = np.random.default_rng(10 * number + image).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{image}.png")
    (tmp_path / "images/ok/copy.png").write_bytes((tmp_path / "images/crack/2.png").read_bytes())
    preparation = DataPreparation(DecodeSettings(), SplitSettings(test=0), None, tmp_path, NullReporter().bar)
    prepared = preparation.prepare(Dataset.open(tmp_path / "images"), PixelSpec(16, 1.0, "center", "bilinear"))
    assert prepared.notes == (
        "conflicting labels: 1 image in files with equal bytes but different labels, the first in crack/2.png (crack) "
        "and ok/copy.png (ok); correct or remove one of them",
    )


def test_images_for_another_geometry_have_the_split_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is a near-duplicate at one size need not be one at another.
    pairs = {16: [NearDuplicate(number, number + 1, 1.0) for number in range(0, 8, 2)], 32: []}
    monkeypatch.setattr(PixelStore, "duplicates", lambda store, *arguments: pairs[store.spec.size])
    for number in range(20):
        folder = tmp_path / "images" / ("ok", "crack")[number // 10]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    preparation = DataPreparation(DecodeSettings(), SplitSettings(), None, tmp_path, NullReporter().bar)
    dataset = Dataset.open(tmp_path / "images")
    small = preparation.prepare(dataset, PixelSpec(16, 1.0, "center", "bilinear"))
    large = preparation.prepare(dataset, PixelSpec(32, 1.0, "center", "bilinear"), small)
    assert large.manifest is small.manifest and large.duplicates == small.duplicates
    assert large.pixels.read(0).shape[0] == 32
