import yaml

from thaw.recipe import Recipe, ResolvedRecipe
from thaw.recipe.upgrade import upgraded

RELEASE_0_1 = """
task: multiclass
device: cpu
engine: openvino-bf16
precision: bf16
views: 2
stored_as: float16
cache_gb: 36.5
class_weights: none
monitor: accuracy
strategy: as_written
target: accuracy=0.97
candidates: [starter, resnet50=resnet50.safetensors]
loggers: [tensorboard]
decide:
  recall: crack=0.99, pits=0.9
  precision: null
  costs: crack>ok=50,ok>crack=2
  coverage: 0.95
  familiar: 0.9
phases:
- {name: head, cut: head, epochs: 9, lr: 0.003, solver: lbfgs, inputs: stored}
- {name: fine-tune, cut: blocks.5, epochs: 20, lr: 0.0003, solver: steps, inputs: fresh}
"""


def test_a_recipe_of_release_0_1_means_the_same_today() -> None:
    recipe = ResolvedRecipe.from_values(yaml.safe_load(RELEASE_0_1))
    assert recipe.strategy == "manual" and recipe.cache_dtype == "float16" and recipe.target == {"accuracy": 0.97}
    assert recipe.candidates == {"starter": "published", "resnet50": "resnet50.safetensors"}
    assert recipe.decision.recall == {"crack": 0.99, "pits": 0.9} and not recipe.decision.precision
    assert recipe.decision.costs == {"crack": {"ok": 50.0}, "ok": {"crack": 2.0}}
    assert recipe.decision.in_distribution == 0.9
    assert [(phase.solver, phase.inputs) for phase in recipe.phases] == [("lbfgs", "cached"), ("optimizer", "fresh")]


def test_a_recipe_that_release_0_1_resolved_trains_the_head_that_it_trained() -> None:
    values = yaml.safe_load(RELEASE_0_1)
    assert Recipe.from_values(values).head.features == "last"
    assert Recipe.from_values({**values, "stored_as": "auto"}).head.features == "auto"


def test_a_recipe_that_release_0_1_resolved_keeps_any_gain_as_it_did() -> None:
    values = yaml.safe_load(RELEASE_0_1)
    assert Recipe.from_values(values).keep_phase == ResolvedRecipe.from_values(values).keep_phase == "any_gain"
    assert Recipe.from_values({**values, "keep_phase": "standard_error"}).keep_phase == "standard_error"
    assert Recipe.from_values({**values, "stored_as": "auto"}).keep_phase == "auto"


def test_a_recipe_of_today_is_left_as_it_is() -> None:
    values = Recipe(decision={"recall": {"crack": 0.99}}).model_dump(mode="json")  # type: ignore[arg-type]
    assert upgraded(values) == values
