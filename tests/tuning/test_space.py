from pathlib import Path

import pytest

from thaw.errors import RecipeError
from thaw.recipe import Recipe
from thaw.recipe.ranges import Range, Values
from thaw.tuning.levels import FULL, HEAD, PROBE, SHORT
from thaw.tuning.space import Space, default_space, fixed_keys, narrowed, read_space

SPACE = default_space(["starter", "resnet50"], {})


def test_a_file_narrows_and_widens(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("phases.1.lr: {low: 1e-6, high: 1e-2, log: true}\nhead.hidden: [[], [64, 32]]\n")
    found = narrowed(SPACE, read_space(file), [], Recipe())
    assert found.ranges["phases.1.lr"] == Range(1e-6, 1e-2, log=True)
    assert found.ranges["head.hidden"] == Values(((), (64, 32)))
    assert found.ranges["head.dropout"] == SPACE.ranges["head.dropout"]


def test_what_is_fixed_stays_unless_the_file_names_it() -> None:
    found = narrowed(SPACE, {"views": [1, 2]}, ["views", "head.dropout"], Recipe())
    assert "head.dropout" not in found.ranges
    assert found.ranges["views"] == Values((1, 2))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"phases.1.rate": [1e-3]}, "space: phases.1.rate: unknown key"),
        ({"views": []}, "space: views: is empty"),
        ({"views": [0]}, "views"),
        ({"class_weights": ["none", "auto"]}, "space: class_weights: auto leaves it to the plan"),
        ({"views": 4}, "neither a list of values nor"),
        ({"phases.1.lr": {"low": 1e-3, "high": 1e-5}}, "low must be below high"),
        ({"phases.1.lr": {"low": 0, "high": 1e-5, "log": True}}, "above 0 where log is true"),
        ({"phases.1.lr": {"from": 1e-3, "to": 1e-5}}, "neither a list of values nor"),
        ({"phases.1.lr": {"low": "a", "high": "b"}}, "neither a list of values nor"),
        ({"phases.1.epochs": {"low": 4, "high": 20}}, "phases.1.epochs: takes whole numbers, so list the values"),
        ({"preprocessing.image_size": {"low": 160, "high": 448}}, "image_size: takes whole numbers"),
        ({"views": {"low": 1, "high": 2}}, "views: takes whole numbers"),
        ({"phases.1.lr": {"low": 1e-5, "high": float("inf")}}, "neither a list of values nor"),
        ({"backbone": ["starter", "auto"]}, "space: backbone: auto leaves it to the plan"),
        ({"backbone": [50]}, "space: backbone: 50 is not allowed"),
        ({"backbone": {"low": 1, "high": 2}}, "space: backbone: 1.0 is not allowed"),
    ],
)
def test_a_wrong_range_is_one_sentence(given: dict, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as error:
        narrowed(SPACE, given, [], Recipe())
    assert "\n" not in str(error.value)


def test_what_is_fixed_by_name_is_a_setting_or_all_of_a_section() -> None:
    assert fixed_keys("head.dropout", [], Recipe()) == ["head.dropout"]
    assert fixed_keys(["phases.1.lr", "augment.preset"], ["views"], Recipe()) == ["phases.1.lr", "augment.preset"]
    assert {"head.features", "head.hidden", "head.dropout"} < set(fixed_keys({"head"}, ["views"], Recipe()))
    assert "phases.1.lr" in fixed_keys(["phases"], [], Recipe())


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        (["head.dropuot"], "fixed: head.dropuot: unknown key 'head.dropuot'; did you mean 'head.dropout'"),
        (["lr"], "fixed: lr: unknown key 'lr'; known are .*phases.1.lr"),
        ("dropout", "fixed: dropout: unknown key 'dropout'"),
        (["phases.2.lr"], "fixed: phases.2.lr: unknown key"),
        (["views"], "fixed: views: has a range in space as well"),
    ],
)
def test_what_is_fixed_and_is_not_there_or_has_a_range_is_refused(fixed: str | list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        fixed_keys(fixed, {"views": [1, 2]}, Recipe())


def test_values_are_what_a_recipe_makes_of_them() -> None:
    """So numbers that were given as text are compared with those of the plan and of other recipes."""
    given = {"phases.1.lr": ["1e-4", 1e-3], "head.hidden": [["64"], []], "views": [1, 1.0, "2"]}
    found = narrowed(SPACE, given, [], Recipe()).ranges
    assert found["phases.1.lr"] == Values((1e-4, 1e-3))
    assert found["phases.1.lr"].nearest(5e-3) == 1e-3
    assert found["head.hidden"] == Values(((64,), ()))
    assert found["views"] == Values((1, 2))


def test_nothing_to_vary_is_refused() -> None:
    with pytest.raises(RecipeError, match="nothing to search"):
        narrowed(default_space(["starter"], {}), {}, list(SPACE.ranges)[1:], Recipe())


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("")
    with pytest.raises(RecipeError, match="is empty; write lines such as"):
        read_space(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("views: [1]\nviews: [2]\n")
    with pytest.raises(RecipeError, match=r"twice.yaml: cannot be read as YAML: 'views' is there twice"):
        read_space(tmp_path / "twice.yaml")
    with pytest.raises(RecipeError, match=r"no.yaml: cannot be read"):
        read_space(tmp_path / "no.yaml")


def test_the_size_counts_what_differs() -> None:
    assert SPACE.size(PROBE) == 2 * 7 * 2 * 4 * 3
    assert SPACE.size(SHORT) == float("inf")
    assert SPACE.size(FULL) == 1


def test_it_comes_back_from_json() -> None:
    assert Space.from_json(SPACE.to_json()) == SPACE


def test_settings_outside_are_moved_into_it() -> None:
    found = SPACE.nearest(HEAD, {"head.dropout": 0.9, "views": 64})
    assert found["head.dropout"] == 0.5
    assert found["views"] == 4


def test_an_augmentation_of_the_plan_that_is_no_preset_can_be_chosen() -> None:
    planned = {"phases.0.augment": None, "phases.1.augment": "standard"}
    found = default_space(["starter"], planned).ranges
    assert found["phases.0.augment"] == Values((None, *SPACE.ranges["phases.0.augment"].values))  # type: ignore[union-attr]
    assert found["phases.1.augment"] == SPACE.ranges["phases.1.augment"]
