from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.facts import TrainedHead
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import new_head
from thaw.data.manifest import Manifest
from thaw.planning.measurements import PlannedRecipe
from thaw.planning.trained_head import with_trained_head
from thaw.recipe import HeadSettings, Recipe, Task


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    backbone = build("mobilenetv3_small_050", "random")
    generator = torch.Generator().manual_seed(0)
    sizes = [(7, backbone.facts.width), (3, 7)]
    layers = tuple(
        (torch.randn(shape, generator=generator), torch.randn(shape[:1], generator=generator)) for shape in sizes
    )
    backbone.trained_head = TrainedHead(layers, "avg", 0.4, "model.keras")
    return backbone


def planned(backbone: Backbone, head: HeadSettings, classes: str = "abc", task: Task = "multiclass") -> PlannedRecipe:
    manifest = Manifest(pa.table({"path": []}), tuple(classes), task, Path())
    return with_trained_head(PlannedRecipe(Recipe(head=head), ()), backbone, manifest)


def test_the_head_of_a_model_is_taken_over_with_its_reason(backbone: Backbone) -> None:
    plan = planned(backbone, HeadSettings())
    assert (plan.recipe.head.hidden, plan.recipe.head.features, plan.recipe.head.dropout) == ((7,), "last", 0.4)
    (choice,) = plan.choices
    assert (choice.setting, choice.value) == ("head.hidden", "7")
    assert choice.reason == "training goes on from the head of model.keras, with a dropout of 0.4"


def test_a_dropout_that_the_recipe_sets_is_kept(backbone: Backbone) -> None:
    plan = planned(backbone, HeadSettings(dropout=0.05))
    assert plan.recipe.head.dropout == 0.05
    assert plan.choices[0].reason.endswith("with a dropout of 0.05 as requested")


def test_a_head_of_other_classes_is_not_taken_over_and_the_plan_says_so(backbone: Backbone) -> None:
    plan = planned(backbone, HeadSettings(), "abcd")
    assert plan.recipe.head.hidden == ()
    assert "has 3 outputs" in plan.choices[0].reason


@pytest.mark.parametrize("head", [HeadSettings(hidden=(5,)), HeadSettings(features="all")])
def test_a_recipe_that_asks_for_another_head_gets_it(backbone: Backbone, head: HeadSettings) -> None:
    plan = planned(backbone, head)
    assert plan.recipe.head == head
    assert plan.choices == ()


def test_a_new_head_begins_as_the_one_of_the_model(backbone: Backbone) -> None:
    features = torch.randn(4, backbone.facts.width, generator=torch.Generator().manual_seed(1))
    (first, first_bias), (last, last_bias) = backbone.trained_head.layers  # type: ignore[union-attr]
    wanted = (features @ first.T + first_bias).relu() @ last.T + last_bias
    torch.testing.assert_close(new_head(backbone, 3, (7,)).eval()(features), wanted)
    assert not new_head(backbone, 3).eval()(features).any()
    assert not new_head(backbone, 4, (7,)).eval()(features).any()
