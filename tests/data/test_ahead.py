"""Decoding while PyTorch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from thaw.backbones import build
from thaw.data import pixel_store
from thaw.data.ahead import _STARTER, decode_ahead, remember_geometry
from thaw.data.dataset import Dataset
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import DataPreparation
from thaw.data.surfaces import write_surfaces
from thaw.progress import NullReporter
from thaw.recipe import PreprocessingSettings, Recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead") / "images"
    write_surfaces(folder, images_per_class=8, size=48, classes=("ok", "scratch"))
    return folder


def never(*_: object) -> None:
    raise AssertionError("decoded again")


def test_what_is_decoded_ahead_is_what_the_run_needs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, dataset = Recipe(backbone="starter"), Dataset.open(images)
    ahead = decode_ahead(dataset.manifest, recipe, tmp_path)
    assert ahead
    ahead.wait(NullReporter().bar)
    monkeypatch.setattr(pixel_store, "_build", never)
    preparation = DataPreparation(recipe.decode, recipe.split, None, tmp_path, NullReporter().bar)
    assert len(preparation.prepare(dataset, build(recipe).facts.pixels).manifest) == 16


def test_the_first_run_of_all_expects_what_the_bundled_network_wants(images: Path, tmp_path: Path) -> None:
    assert build(Recipe(backbone="starter")).facts.pixels == _STARTER
    manifest = Dataset.open(images).manifest
    assert decode_ahead(manifest, Recipe(backbone="resnet50"), tmp_path) is None
    assert decode_ahead(manifest, Recipe(preprocessing=PreprocessingSettings(image_size=64)), tmp_path) is None


def test_a_later_run_expects_what_the_last_one_with_these_settings_wanted(images: Path, tmp_path: Path) -> None:
    recipe = Recipe(backbone="resnet18", weights="random", preprocessing=PreprocessingSettings(image_size=64))
    spec, manifest = build(recipe).facts.pixels, Dataset.open(images).manifest
    remember_geometry(recipe, spec, tmp_path)
    ahead = decode_ahead(manifest, recipe, tmp_path)
    assert ahead
    ahead.wait(NullReporter().bar)
    assert [place for place in (tmp_path / "pixels").iterdir() if place.is_dir()]
    assert decode_ahead(manifest, recipe.model_copy(update={"weights": "published"}), tmp_path) is None


def test_an_error_ahead_is_left_to_the_run(images: Path, tmp_path: Path) -> None:
    manifest = Dataset.open(images).manifest
    (tmp_path / "pixels").write_bytes(b"in the way")
    ahead = decode_ahead(manifest, Recipe(), tmp_path)
    assert ahead
    ahead.wait(NullReporter().bar)
    with pytest.raises(Exception, match="pixels"):
        PixelStore.open_or_build(manifest, _STARTER, Recipe().decode, tmp_path, 1)


def test_decoding_does_not_wait_for_pytorch() -> None:
    code = "import sys, thaw.data.ahead; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
