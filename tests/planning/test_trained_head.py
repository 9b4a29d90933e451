from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.facts import TrainedHead
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head, outputs_of, start_from_trained_head
from thaw.data.manifest import Manifest
from thaw.planning.measurements import PlannedRecipe
from thaw.planning.trained_head import with_trained_head
from thaw.recipe import DecodeSettings, HeadSettings, Recipe, Task


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


def test_of_a_linear_head_the_plan_says_only_where_the_outputs_differ(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = (torch.zeros(3, backbone.facts.width), torch.zeros(3))
    monkeypatch.setattr(backbone, "trained_head", TrainedHead((layer,), "avg", 0.4, "model.keras"))
    assert planned(backbone, HeadSettings()).choices == ()
    (choice,) = planned(backbone, HeadSettings(), "abcd").choices
    assert (choice.setting, choice.value) == ("head.hidden", "none")
    assert choice.reason == "a new head: that of model.keras has 3 outputs after avg pooling"


@pytest.mark.parametrize("head", [HeadSettings(hidden=(5,)), HeadSettings(features="all")])
def test_a_recipe_that_asks_for_another_head_gets_it(backbone: Backbone, head: HeadSettings) -> None:
    plan = planned(backbone, head)
    assert plan.recipe.head == head
    assert plan.choices == ()


def classifier_of(backbone: Backbone, classes: Sequence[str], hidden: tuple[int, ...]) -> Classifier:
    task: Task = "binary" if len(classes) == 2 else "multiclass"
    head = new_head(backbone, outputs_of(task, classes), hidden)
    classifier = Classifier(backbone, head, classes, task, DecodeSettings())
    start_from_trained_head(classifier)
    return classifier


def test_a_head_starts_as_the_one_of_the_model(backbone: Backbone) -> None:
    features = torch.randn(4, backbone.facts.width, generator=torch.Generator().manual_seed(1))
    (first, first_bias), (last, last_bias) = backbone.trained_head.layers  # type: ignore[union-attr]
    wanted = (features @ first.T + first_bias).relu() @ last.T + last_bias
    torch.testing.assert_close(classifier_of(backbone, "abc", (7,)).head(features), wanted)
    # Keras sorts names as text: 1, 10, 2.
    torch.testing.assert_close(classifier_of(backbone, ("1", "2", "10"), (7,)).head(features), wanted[:, [0, 2, 1]])
    assert not classifier_of(backbone, "abc", ()).head(features).any()
    assert not classifier_of(backbone, "abcd", (7,)).head(features).any()


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_output_of_a_binary_head_stays_that_of_its_class(outputs: int) -> None:
    backbone = build("mobilenetv3_small_050", "random")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, backbone.facts.width, generator=generator)
    layer = (weight, torch.randn(outputs, generator=generator))
    backbone.trained_head = TrainedHead((layer,), "avg", 0.0, "model.keras")
    features = torch.randn(4, backbone.facts.width, generator=generator)
    found = []
    for classes in (("a", "b"), ("b", "a"), ("2", "10")):
        classifier = classifier_of(backbone, classes, ())
        found.append(classifier.probabilities(classifier.head(features)))
    torch.testing.assert_close(found[1], found[0].flip(1))
    torch.testing.assert_close(found[2], found[0].flip(1))
