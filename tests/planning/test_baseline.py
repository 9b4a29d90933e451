"""The plan of a baseline, and whether the run it belongs to would only repeat it."""

from __future__ import annotations

from typing import Any

import pytest

from thaw.planning.baseline import baseline_recipe, begins_with
from thaw.recipe import Recipe, ResolvedRecipe

RESOLVED: dict[str, Any] = {
    "task": "multiclass",
    "device": "cpu",
    "engine": "pytorch-fp32",
    "precision": "fp32",
    "steps": "eager",
    "memory_format": "channels_last",
    "views": 2,
    "cache_dtype": "float16",
    "cache_gb": 1.0,
    "class_weights": "none",
    "monitor": "accuracy",
    "keep_phase": "any_gain",
    "head.features": "last",
    "augment.preset": "standard",
    "phases.0.augment": "none",
    "phases.0.solver": "lbfgs",
    "phases.0.epochs": 9,
    "phases.1.solver": "optimizer",
}


def resolved(**changes: Any) -> ResolvedRecipe:
    """A plan for a head without augmentation, and for thawed stages with it."""
    values = Recipe(strategy="manual").with_settings(RESOLVED | changes).model_dump()
    for phase in values["phases"]:
        phase |= {"batch_size": 32, "inputs": "cached" if phase["inputs"] == "auto" else phase["inputs"]}
    return ResolvedRecipe.from_values(values)


def test_a_run_begins_with_its_baseline_whatever_its_thawed_stages_train_on() -> None:
    recipe = resolved()
    assert begins_with(recipe, baseline_recipe(recipe))
    assert begins_with(resolved(**{"augment.preset": "light", "phases.1.lr": 1e-5}), baseline_recipe(recipe))


@pytest.mark.parametrize(
    "changes",
    [
        {"phases.0.augment": "light"},
        {"phases.0.augment": None},
        {"phases.0.label_smoothing": 0.1},
        {"phases.0.epochs": 3},
        {"phases.0.solver": "optimizer"},
        {"phases.0.inputs": "fresh"},
        {"target": {"accuracy": 0.9}},
        {"seed": 1},
        {"threads": 1},
    ],
)
def test_a_run_whose_first_phase_differs_does_not(changes: dict[str, Any]) -> None:
    assert not begins_with(resolved(**changes), baseline_recipe(resolved()))


def test_a_run_without_a_baseline_does_not() -> None:
    assert not begins_with(resolved(), None)
