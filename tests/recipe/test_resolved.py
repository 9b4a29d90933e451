import pytest

from thaw.errors import RecipeError
from thaw.recipe import Recipe, ResolvedRecipe

DECIDED = {
    "task": "binary",
    "device": "cpu",
    "engine": "pytorch-fp32",
    "precision": "fp32",
    "views": 2,
    "cache_dtype": "float16",
    "cache_gb": 1.0,
    "class_weights": "none",
    "monitor": "accuracy",
    "strategy": "manual",
    "phases": [{"name": "head", "cut": "head", "epochs": 1, "lr": 0.1, "solver": "lbfgs", "inputs": "cached"}],
}


def test_a_resolved_recipe_is_a_recipe_that_can_be_run_again() -> None:
    resolved = ResolvedRecipe.from_values(DECIDED)
    assert Recipe.from_values(resolved.model_dump(mode="json")).differences(resolved) == []


def test_features_of_the_head_are_decided_and_were_those_of_the_last_stage_before() -> None:
    assert ResolvedRecipe.from_values(DECIDED).head.features == "last"
    with pytest.raises(RecipeError, match=r"head\.features"):
        ResolvedRecipe.from_values({**DECIDED, "head": {"features": "auto"}})


def test_a_run_that_began_without_a_rule_keeps_any_gain() -> None:
    assert ResolvedRecipe.from_values(DECIDED).keep_phase == "any_gain"


@pytest.mark.parametrize(
    "setting", ["engine", "precision", "views", "cache_dtype", "class_weights", "monitor", "keep_phase"]
)
def test_auto_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError, match=setting):
        ResolvedRecipe.from_values({**DECIDED, setting: "auto"})
