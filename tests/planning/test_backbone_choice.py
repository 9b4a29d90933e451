from dataclasses import replace
from pathlib import Path

import pytest

from thaw.data.dataset import Dataset
from thaw.data.prepare import DataPreparation
from thaw.errors import RecipeError
from thaw.planning.backbone_choice import Candidate, candidate_weights, choose_backbone, pick
from thaw.planning.measurements import PlannedRecipe
from thaw.progress import NullReporter
from thaw.recipe import Recipe

TRIAL = Candidate("a", "published", 0.9, 800, 20.0, 10.0, "")


def choose(recipe: Recipe, images: Path, cache: Path) -> PlannedRecipe:
    preparation = DataPreparation(recipe.decode, recipe.split, None, cache, NullReporter().bar)
    return choose_backbone(recipe, Dataset.open(images), preparation, print)


def test_of_equals_the_quickest_is_taken() -> None:
    quick = replace(TRIAL, name="quick", accuracy=0.895, latency_ms=5.0)
    worse = replace(TRIAL, name="worse", accuracy=0.8, latency_ms=1.0)
    assert pick([TRIAL, quick, worse]) == quick
    assert pick([replace(TRIAL, accuracy=0.95), quick, worse]).name == "a"


def test_without_names_the_candidates_are_what_is_on_this_machine() -> None:
    assert ("starter", "published") in list(candidate_weights(Recipe()))
    named = Recipe(candidates={"resnet50": "a/b.safetensors", "starter": "published"})
    assert list(candidate_weights(named)) == [("resnet50", "a/b.safetensors"), ("starter", "published")]


def test_pre_trained_features_win_against_random_ones_and_the_reason_has_the_figures(
    images: Path, tmp_path: Path
) -> None:
    recipe = Recipe(backbone="auto", candidates={"mobilenetv3_small_050": "random", "starter": "published"})
    chosen = choose(recipe, images, tmp_path)
    assert (chosen.recipe.backbone, chosen.recipe.weights) == ("starter", "published")
    (choice,) = chosen.choices
    assert "cross-validated" in choice.reason and "compared with mobilenetv3_small_050" in choice.reason
    assert " ms" in choice.reason and " MB" in choice.reason


def test_limits_refuse_and_without_a_candidate_left_the_error_says_what_was_tried(images: Path, tmp_path: Path) -> None:
    small = Recipe(
        backbone="auto", candidates={"mobilenetv3_small_050": "random", "starter": "published"}, max_size_mb=5
    )
    assert choose(small, images, tmp_path).recipe.backbone == "mobilenetv3_small_050"
    with pytest.raises(RecipeError, match=r"no candidate is within the limits.*over the limit of 0\.001 ms"):
        choose(small.model_copy(update={"max_latency_ms": 0.001}), images, tmp_path)


def test_a_named_backbone_is_not_tried(images: Path, tmp_path: Path) -> None:
    named = Recipe(backbone="resnet50")
    assert choose(named, images, tmp_path) == PlannedRecipe(named, ())
