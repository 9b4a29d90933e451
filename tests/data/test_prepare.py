from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.data.dataset import Dataset
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
