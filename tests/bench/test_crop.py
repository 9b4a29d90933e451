from pathlib import Path

import pytest

from bench import crop
from tests.striped_images import at_the_ends, striped
from thaw.recipe import PreprocessingSettings, Recipe


def test_a_gain_of_squashing_is_found_on_test_images_and_in_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images whose classes differ at their ends."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(crop, "ENGINE", "pytorch-fp32")
    striped(tmp_path / "images", 160, at_the_ends(160), images=30)
    recipe = Recipe(backbone="starter", preprocessing=PreprocessingSettings(image_size=64))
    row = crop.row_of(tmp_path / "images", recipe, tmp_path / "scratch")
    name, true, single, mean, squashed = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, squashed) == ("images", "yes") and true.startswith("+") and mean.startswith("+")
    assert len(single.split(", ")) == crop.SINGLE
