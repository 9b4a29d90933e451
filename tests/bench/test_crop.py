from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import crop
from thaw.recipe import PreprocessingSettings, Recipe


def test_a_gain_of_squashing_is_found_on_test_images_and_in_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images whose classes differ at their ends."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(crop, "ENGINE", "pytorch-fp32")
    rng = np.random.default_rng(0)
    for name in ("plain", "striped"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(80, 120, (64, 160, 3), dtype=np.uint8)
            if name == "striped":
                pixels[::6, :26] = pixels[::6, -26:] = 250
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    recipe = Recipe(backbone="starter", preprocessing=PreprocessingSettings(image_size=64))
    row = crop.row_of(tmp_path / "images", recipe, tmp_path / "scratch")
    name, true, single, mean, squashed = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, squashed) == ("images", "yes") and true.startswith("+") and mean.startswith("+")
    assert len(single.split(", ")) == crop.SINGLE
