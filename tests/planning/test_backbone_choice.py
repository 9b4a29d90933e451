from pathlib import Path

import numpy as np
import pytest

from thaw.data.dataset import Dataset
from thaw.data.prepare import DataPreparation
from thaw.data.surfaces import write_surfaces
from thaw.errors import RecipeError
from thaw.planning.backbone_choice import Candidate, candidate_weights, choose_backbone, pick
from thaw.planning.measurements import PlannedRecipe
from thaw.progress import NullReporter
from thaw.recipe import PreprocessingSettings, Recipe

IMAGES = 800
SMALL = PreprocessingSettings(image_size=64)


def candidate(name: str, accuracy: float, latency_ms: float) -> Candidate:
    """A network that predicts the first images correctly."""
    correct = (np.arange(IMAGES) < accuracy * IMAGES).astype(float)
    return Candidate(name, "published", correct, np.arange(IMAGES), latency_ms, size_mb=10.0)


def choose(recipe: Recipe, images: Path, cache: Path) -> PlannedRecipe:
    preparation = DataPreparation(recipe.decode, recipe.split, None, cache, NullReporter().bar)
    return choose_backbone(recipe, Dataset.open(images), preparation, print)


def test_of_equals_the_quickest_is_taken() -> None:
    usual, worse = candidate("a", 0.9, 20.0), candidate("worse", 0.8, 1.0)
    quick = candidate("quick", 0.9 - 1 / IMAGES, 5.0)
    assert pick([usual, quick, worse]) == quick
    assert pick([candidate("a", 0.95, 20.0), quick, worse]).name == "a"


def test_without_names_the_candidates_are_what_is_on_this_machine() -> None:
    assert ("starter", "published") in list(candidate_weights(Recipe()))
    named = Recipe(candidates={"resnet50": "a/b.safetensors", "starter": "published"})
    assert list(candidate_weights(named)) == [("resnet50", "a/b.safetensors"), ("starter", "published")]


def test_pre_trained_features_win_against_random_ones_and_the_reason_has_the_figures(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_surfaces(images, images_per_class=30, size=64)
    candidates = {"mobilenetv3_small_050": "random", "starter": "published"}
    recipe = Recipe(backbone="auto", candidates=candidates, preprocessing=SMALL)
    chosen = choose(recipe, images, tmp_path)
    assert (chosen.recipe.backbone, chosen.recipe.weights) == ("starter", "published")
    (choice,) = chosen.choices
    assert "cross-validated" in choice.reason and "compared with mobilenetv3_small_050" in choice.reason
    assert " ms" in choice.reason and " MB" in choice.reason


def test_a_class_with_one_training_image_is_no_reason_to_compare_nothing(tmp_path: Path) -> None:
    write_surfaces(tmp_path / "images", images_per_class=10, size=64, classes=("ok", "stain"))
    files = sorted((tmp_path / "images").rglob("*.png"))
    rows = [(file, file.parent.name, "val" if number % 5 == 0 else "train") for number, file in enumerate(files)]
    burr = (files[1], "burr", "train")
    lines = ["path,label,split", *(",".join(map(str, row)) for row in [burr, *rows[:1], *rows[2:]])]
    (tmp_path / "images.csv").write_text("\n".join(lines), encoding="utf-8")
    recipe = Recipe(backbone="auto", candidates={"mobilenetv3_small_050": "random"}, preprocessing=SMALL)
    (choice,) = choose(recipe, tmp_path / "images.csv", tmp_path).choices
    assert "cross-validated on 15 training images" in choice.reason


def test_limits_refuse_and_without_a_candidate_left_the_error_says_what_was_tried(images: Path, tmp_path: Path) -> None:
    candidates = {"mobilenetv3_small_050": "random", "starter": "published"}
    small = Recipe(backbone="auto", candidates=candidates, preprocessing=SMALL, max_size_mb=5)
    assert choose(small, images, tmp_path).recipe.backbone == "mobilenetv3_small_050"
    with pytest.raises(RecipeError, match=r"no candidate is within the limits.*over the limit of 0\.001 ms"):
        choose(small.model_copy(update={"max_latency_ms": 0.001}), images, tmp_path)


def test_a_named_backbone_is_not_tried(images: Path, tmp_path: Path) -> None:
    named = Recipe(backbone="resnet50")
    assert choose(named, images, tmp_path) == PlannedRecipe(named, ())
