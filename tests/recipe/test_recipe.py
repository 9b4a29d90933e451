import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from thaw.errors import RecipeError
from thaw.recipe import Phase, Recipe


def test_the_default_is_the_guide_s_two_phases() -> None:
    head, top = Recipe().phases
    assert head.cut == "head"
    assert top.cut != "head"
    assert 10 <= head.lr / top.lr <= 100
    assert head.batchnorm == top.batchnorm == "frozen"


def test_a_recipe_survives_yaml(tmp_path: Path) -> None:
    recipe = Recipe().with_settings({"backbone": "resnet50", "head.hidden": [256, 64], "phases.1.lr": 1e-5})
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    assert Recipe.load(file) == recipe
    assert recipe.phases[1].lr == 1e-5
    assert recipe.head.hidden == (256, 64)


def test_changing_one_setting_does_not_set_the_others() -> None:
    changed = Recipe().with_settings({"decision.coverage": 0.9}).with_settings({"seed": 3, "phases.1.lr": 1e-5})
    assert changed.model_fields_set == {"decision", "seed", "strategy", "phases"}
    assert changed.decision.model_fields_set == {"coverage"}
    assert changed == Recipe.from_values(changed.model_dump(mode="json"))


@pytest.mark.parametrize("settings", [{"phases.0.cut": "stages:1"}, {"head.hidden": [64]}, {"phases.0.mixup": 0.2}])
def test_only_a_linear_head_can_be_solved(settings: dict[str, object]) -> None:
    asked = Recipe().with_settings({"phases.0.solver": "lbfgs"})
    with pytest.raises(RecipeError, match="phase head: solver lbfgs needs cut head"):
        asked.with_settings(settings)


@given(
    epochs=st.integers(1, 500),
    lr=st.floats(1e-7, 1.0),
    optimizer=st.sampled_from(["adam", "adamw", "sgd", "rmsprop"]),
    schedule=st.sampled_from(["constant", "cosine", "cosine_restarts", "plateau", "one_cycle"]),
    patience=st.none() | st.integers(1, 50),
)
def test_every_phase_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory,
    epochs: int,
    lr: float,
    optimizer: str,
    schedule: str,
    patience: int | None,
) -> None:
    values = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "schedule": schedule, "patience": patience}
    recipe = Recipe.from_values({"phases": [{"name": "only", "cut": "head", **values}]})
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    assert Recipe.load(file) == recipe


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("phases.1.lrr", "1", "did you mean 'lr'"),
        ("phases.7.lr", "1", "counts from 0 to 1"),
        ("augment.rotation", "400", "augment.rotation: Input should be less than or equal to 180"),
        ("precision", "fp64", "'auto', 'fp32' or 'bf16'"),
        ("split.val", "0.0", "split.val must be above 0"),
        ("backbon", "resnet50", "did you mean 'backbone'"),
        ("views", "100", "views: Input should be less than or equal to 64, or 'auto' (got '100')"),
        ("steps", "0", "steps: Input should be 'auto', or 'eager', 'cuda_graph' or 'compiled' (got '0')"),
        ("memory_format", "x", "memory_format: Input should be 'auto', or 'contiguous' or 'channels_last' (got 'x')"),
        ("phases.0.batch_size", "-1", "batch_size: Input should be greater than or equal to 1, or 'auto' (got '-1')"),
        ("phases.0.name", "fine-tune", "two phases share a name"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(key: str, value: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe().with_settings({key: value})
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbon": "resnet50"},
        {"monitor": "acc"},
        {"phases": [{"name": "head", "cut": "head", "epochs": 1, "lr": 1e-3, "lrr": 1}]},
        {"seed": -1, "views": 100},
        {"phase_settings": {"phases.1.lrr": 1}},
        {"strategy": "manual", "phase_settings": {"phases.1.lr": 1e-4}},
    ],
    ids=str,
)
def test_a_recipe_that_is_made_in_python_is_refused_in_the_words_of_a_file(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as of_file:
        Recipe.from_values(wrong, where="recipe")
    with pytest.raises(RecipeError) as of_python:
        Recipe(**wrong)
    assert str(of_python.value) == str(of_file.value)
    assert str(of_python.value).count("recipe: ") == str(of_python.value).count("\n") + 1


@pytest.mark.parametrize(
    "values",
    [
        {"loggers": "mlflow,wandb"},
        {"target": "accuracy=0.97"},
        {"candidates": ["starter"]},
        {"decision": {"recall": "ok=0.9"}},
        {"strategy": "as_written"},
        {"time_limit": "10m"},
    ],
    ids=str,
)
def test_a_recipe_that_is_made_in_python_takes_the_values_that_a_file_may_have(values: dict[str, Any]) -> None:
    recipe = Recipe(**values)
    assert recipe == Recipe.from_values(values) == Recipe.model_validate_json(json.dumps(values))
    assert recipe.model_fields_set == {*values}


def test_a_wrong_key_in_a_file_names_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("head:\n  hiden: [3]\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml: head\.hiden: unknown key 'hiden'; did you mean 'hidden'"):
        Recipe.load(file)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00", "seed: 1\nseed: 2\n"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="mine"):
        Recipe.load(file)


def test_a_file_may_name_any_class(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("decision: {recall: {no: 0.9, 7: 1e-1}}\ntime_limit: 90s\n")
    assert Recipe.load(file).decision.recall == {"no": 0.9, "7": 0.1}


def test_differences_name_each_setting() -> None:
    changed = Recipe().with_settings({"seed": 3, "phases.0.epochs": 7})
    assert Recipe().differences(changed) == [
        "seed: 0 -> 3",
        "strategy: auto -> manual",
        "phases.0.epochs: 20 -> 7",
    ]
    assert Recipe().differences(Recipe()) == []


def test_a_removed_phase_is_a_difference() -> None:
    single = Recipe(phases=(Phase(name="head", cut="head", epochs=20, lr=1e-3),))
    assert any(line.startswith("phases.1.name: fine-tune -> (absent)") for line in Recipe().differences(single))


def test_phases_that_a_recipe_names_are_not_replaced_by_the_plan() -> None:
    assert Recipe().strategy == "auto"
    assert Recipe(phases=Recipe().phases).strategy == "manual"
    assert Recipe().with_settings({"phases.1.lr": 1e-5}).strategy == "manual"
    assert Recipe().with_settings({"strategy": "top", "phases.1.lr": 1e-5}).strategy == "top"
    assert Recipe.from_values({"phases": [], "strategy": "head"} | Recipe().model_dump(include={"phases"})) == Recipe(
        strategy="head"
    )


@pytest.mark.parametrize("strategy", ["head", "top", "whole", "scratch", "auto"])
@pytest.mark.parametrize(("key", "value"), [("phases.1.lr", 3e-4), ("phases.2.epochs", 5), ("phases.0.batch_size", 64)])
def test_a_setting_of_a_phase_is_kept_for_the_phases_that_a_strategy_plans(
    strategy: str, key: str, value: float
) -> None:
    recipe = Recipe().with_settings({key: value, "strategy": strategy})
    assert recipe.strategy == strategy and recipe.phase_settings == {key: value} and recipe.phases == Recipe().phases
    assert Recipe.from_values(recipe.model_dump(mode="json")) == recipe
    if not key.startswith("phases.2"):
        assert Recipe().with_settings({key: value, "strategy": "manual"}).phase_settings == {}


def test_a_list_among_the_settings_of_a_phase_survives_json() -> None:
    recipe = Recipe().with_settings({"phases.1.freeze_after": [1, 3], "strategy": "top"})
    assert recipe.phase_settings == {"phases.1.freeze_after": (1, 3)}
    assert Recipe.from_values(json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"phases.1.lr": -1}, "phases.1.lr: Input should be greater than 0 (got -1)"),
        ({"phases.1.lrr": 1}, "phases.1.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        ({"phases.x.lr": 1e-3}, "phases.x.lr: there is no number x; it counts from 0 to 2"),
        ({"foo": 1}, "foo: not a setting of a phase; those have names such as phases.1.lr"),
        ({"phases": 1}, "phases: not a setting of a phase"),
        ({"phases.1.solver": "lbfgs"}, "phase fine-tune: solver lbfgs needs cut head"),
    ],
)
def test_settings_of_phases_in_a_file_are_checked_as_those_of_the_command_line(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"phase_settings": settings}))
    with pytest.raises(RecipeError, match=r"mine\.yaml: phase_settings: ") as caught:
        Recipe.load(file)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_settings_of_phases_that_nothing_plans_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"strategy manual plans no phases that phases\.1\.lr could change"):
        Recipe.from_values({"strategy": "manual", "phase_settings": {"phases.1.lr": 1e-4}})


def test_a_setting_of_a_phase_joins_those_that_a_recipe_keeps_for_the_plan() -> None:
    recipe = Recipe(phase_settings={"phases.1.lr": 1e-5}).with_settings({"phases.1.epochs": 2})
    assert (recipe.strategy, recipe.phase_settings) == ("auto", {"phases.1.lr": 1e-5, "phases.1.epochs": 2})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessing.mean", [123.675, 116.28, 103.53]),
        ("preprocessing.mean", [float("nan"), 0.5, 0.5]),
        ("preprocessing.std", [float("inf"), 1.0, 1.0]),
        ("preprocessing.crop_pct", 0.001),
        ("decode.white_level", float("inf")),
        ("measure.seconds", float("inf")),
        ("decision.costs", {"crack": {"ok": float("inf")}}),
        ("preprocessing.std", [58.4, 57.1, 57.4]),
        ("seed", 2**64),
        ("split.seed", 2**64),
    ],
)
def test_numbers_that_nothing_can_compute_with_are_refused(key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"{key}.*: Input should be"):
        Recipe().with_settings({key: value})


def test_without_a_strategy_a_setting_of_a_phase_that_only_the_plan_has_is_refused_with_the_way_to_keep_it() -> None:
    with pytest.raises(RecipeError, match=r"^phases\.2\.epochs: the recipe has 2 phases.* add `--strategy top`"):
        Recipe().with_settings({"phases.2.epochs": 3})
    with pytest.raises(RecipeError, match=r"^phases\.7\.lr: there is no number 7; it counts from 0 to 1"):
        Recipe().with_settings({"phases.7.lr": 1e-3})


@pytest.mark.parametrize(
    ("key", "value"), [("phases.1.lr", -1), ("phases.2.lr", -1), ("phases.1.lrr", 1), ("phases.7.lr", 1e-3)]
)
def test_a_wrong_setting_of_a_phase_is_refused_with_any_strategy(key: str, value: float) -> None:
    with pytest.raises(RecipeError, match=r"phases\.\d\.lr"):
        Recipe().with_settings({key: value, "strategy": "top"})


def test_phases_given_as_a_whole_are_refused_with_a_strategy_that_would_replace_them() -> None:
    phases = [{"name": "only", "cut": "head", "epochs": 1, "lr": 1e-3}]
    with pytest.raises(RecipeError, match=r"^phases: strategy whole plans .*`thaw plan DATA --strategy whole"):
        Recipe().with_settings({"phases": phases, "strategy": "whole"})


def test_a_recipe_that_names_both_phases_and_a_strategy_is_refused_before_anything_is_planned() -> None:
    phases = Recipe().with_settings({"phases.1.mixup": 0.2}).phases
    with pytest.raises(RecipeError, match=r"^phases\.1\.mixup: strategy whole"):
        Recipe(strategy="whole", phases=phases).check_strategy()
    for kept in (Recipe(phases=phases), Recipe(strategy="whole"), Recipe.from_values(Recipe().model_dump())):
        kept.check_strategy()


def test_a_class_of_any_name_can_have_a_requirement(tmp_path: Path) -> None:
    decision = {"recall": {"a=b,c>d": 0.99, "e.f": 1}, "costs": {"a=b,c>d": {"e.f": 50}}}
    recipe = Recipe.from_values({"decision": decision})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert recipe.decision.recall["a=b,c>d"] == 0.99 and recipe.decision.costs["a=b,c>d"]["e.f"] == 50


@pytest.mark.parametrize("wrong", [{"accuracy": 97}, {"accuracy": 0}, {"nonsense": 0.9}, "accuracy"])
def test_a_target_is_a_metric_and_a_fraction(wrong: object) -> None:
    assert Recipe(target={"accuracy": 0.97}).target == {"accuracy": 0.97}
    with pytest.raises(RecipeError, match="target"):
        Recipe.from_values({"target": wrong})


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "xpu", "mps"])
def test_any_accelerator_can_be_named(device: str) -> None:
    assert Recipe(device=device).device == device


def test_settings_of_planned_phases_are_those_for_its_head() -> None:
    settings = {"strategy": "head", "head.hidden": [64], "phases.0.solver": "lbfgs"}
    with pytest.raises(RecipeError, match="phase head: solver lbfgs needs"):
        Recipe().with_settings(settings)
    assert Recipe().with_settings(settings | {"head.hidden": []}).phase_settings == {"phases.0.solver": "lbfgs"}


@pytest.mark.parametrize("settings", [{"max_latency_ms": 5}, {"max_size_mb": 5}, {"candidates": {"starter": "random"}}])
def test_settings_of_the_choice_of_a_backbone_are_not_ignored(settings: dict[str, Any]) -> None:
    (key,) = settings
    said = f"^{key}: is for backbone auto; add --backbone auto"
    with pytest.raises(RecipeError, match=said):
        Recipe(**settings).check_choice()
    named = Recipe(**settings, backbone="resnet50")
    with pytest.raises(RecipeError, match=said):
        named.check_choice(settings)
    # As the recipe of a run has them, whose plan chose.
    named.check_choice()
    named.check_choice({"seed"})
    Recipe(**settings, backbone="auto").check_choice(settings)
