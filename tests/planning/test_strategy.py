from collections.abc import Callable
from dataclasses import replace

import pytest

from thaw.backbones.timm_backbone import build
from thaw.errors import RecipeError
from thaw.inspection.similarity import Similarity, Verdict
from thaw.planning.freezing import with_freezing
from thaw.planning.strategy import DEEPER, TABLE, TOP, apply_strategy, choose_strategy, flops_above
from thaw.recipe import Recipe, Strategy
from thaw.settings import value_at

PRETENDED = Recipe(weights="a.safetensors")


def seen(verdict: Verdict, shift: float | None = 0.5) -> Callable[[], Similarity]:
    return lambda: Similarity(shift, (), verdict)


@pytest.mark.parametrize(
    ("images", "verdict", "strategy"),
    [(300, "similar", "head"), (300, "very different", "top"), (3000, "similar", "top"), (30_000, "similar", "whole")],
)
def test_the_table_decides_by_size_and_similarity_and_says_both(images: int, verdict: Verdict, strategy: str) -> None:
    chosen, why = choose_strategy(PRETENDED, seen(verdict), images, 5)
    assert chosen == strategy
    assert f"{images:,} training images" in why and verdict in why and "feature shift 0.50" in why


def test_the_stranger_or_more_the_images_the_deeper() -> None:
    depth: dict[Strategy, int] = {"head": 0, "top": 1, "whole": 2}
    sizes, verdicts = ("small", "medium", "large"), ("similar", "moderately different", "very different")
    by_size = [[depth[TABLE[size, verdict]] for size in sizes] for verdict in verdicts]
    by_verdict = [list(column) for column in zip(*by_size, strict=True)]
    assert all(row == sorted(row) for row in (*by_size, *by_verdict))


def test_a_few_images_a_class_train_the_head_alone_however_strange() -> None:
    assert choose_strategy(PRETENDED, seen("very different"), 70, 7) == (
        "head",
        "10 training images per class are too few to thaw anything",
    )
    assert choose_strategy(PRETENDED, seen("very different"), 140, 7)[0] == "top"


def test_random_weights_are_trained_from_scratch_and_a_wish_is_obeyed() -> None:
    assert choose_strategy(Recipe(weights="random"), seen("similar"), 300, 5)[0] == "scratch"
    assert choose_strategy(Recipe(strategy="head"), seen("very different"), 30_000, 5) == ("head", "as requested")
    assert choose_strategy(Recipe(phases=Recipe().phases), seen("similar"), 300, 5)[0] == "manual"
    assert choose_strategy(PRETENDED, seen("unknown", None), 3000, 5)[0] == "top"


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("resnet50", ["layer4", "layer3"]),
        ("mobilenetv2_100", ["blocks.5", "blocks.3"]),
        ("efficientnet_b0", ["blocks.5", "blocks.4"]),
    ],
)
def test_the_top_is_thawed_by_its_share_of_the_work(name: str, cuts: list[str]) -> None:
    backbone = build(name, "random")
    fractions = flops_above(backbone)
    assert fractions[0] == pytest.approx(1) and list(fractions) == sorted(fractions, reverse=True)
    found = apply_strategy(PRETENDED, "top", "", backbone, 2000)
    head, top, deeper = found.recipe.phases
    assert [top.cut, deeper.cut] == cuts
    assert not head.optional and top.optional and deeper.optional
    assert deeper.lr < top.lr <= head.lr / 10
    fraction = dict(zip(backbone.block_names, fractions, strict=True))
    stage = next(block.name for block in backbone.blocks if block.stage == top.cut)
    assert fraction[stage] <= TOP < DEEPER


def test_a_network_that_is_no_chain_thaws_as_a_whole() -> None:
    backbone = build("pnasnet5large", "random")
    assert not backbone.is_divisible
    found = apply_strategy(PRETENDED, "top", "", backbone, 2000)
    assert [phase.cut for phase in found.recipe.phases] == ["head", "pixels"]


def test_a_network_without_a_stage_that_is_small_enough_thaws_as_a_whole() -> None:
    backbone = build("mobilenetv3_small_050", "random")
    backbone.blocks = tuple(replace(block, stage="stem") for block in backbone.blocks)
    planned = apply_strategy(PRETENDED, "top", "", backbone, 2000)
    planned = with_freezing(planned, "top", backbone, ())
    assert [phase.cut for phase in planned.recipe.phases] == ["head", "pixels"]


def test_few_epochs_are_enough_for_many_images() -> None:
    backbone = build("mobilenetv3_small_050", "random")
    few, many = (apply_strategy(PRETENDED, "whole", "", backbone, images) for images in (500, 50_000))
    assert few.recipe.phases[1].epochs == 20 and many.recipe.phases[1].epochs == 6
    assert few.recipe.phases[1].cut == "pixels" and few.recipe.phases[1].batchnorm == "frozen"
    few, many = (apply_strategy(PRETENDED, "top", "", backbone, images) for images in (500, 50_000))
    assert few.recipe.phases[1].epochs == 10 and many.recipe.phases[1].epochs == 6
    (scratch,) = apply_strategy(PRETENDED, "scratch", "", backbone, 500).recipe.phases
    assert (scratch.cut, scratch.batchnorm) == ("pixels", "train")


def test_phases_manual_stay() -> None:
    written = PRETENDED.with_settings({"phases.1.lr": 1e-5})
    found = apply_strategy(written, "manual", "", build("mobilenetv3_small_050", "random"), 500)
    assert found.recipe == written


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("head", {"phases.0.epochs": 2}),
        ("top", {"phases.0.epochs": 1, "phases.1.epochs": 1, "phases.1.lr": 1e-5}),
        ("whole", {"phases.1.lr": 3e-4, "phases.1.epochs": 20}),
        ("scratch", {"phases.0.epochs": 1, "phases.0.lr": 1e-2}),
    ],
)
def test_settings_of_phases_are_kept_under_every_strategy_and_named(
    strategy: Strategy, settings: dict[str, float]
) -> None:
    recipe = PRETENDED.with_settings({**settings, "strategy": strategy})
    found = apply_strategy(recipe, strategy, "as requested", build("mobilenetv3_small_050", "random"), 50_000)
    assert {key: value_at(found.recipe, key) for key in settings} == settings
    reasons = {choice.setting: (choice.value, choice.reason) for choice in found.choices}
    assert all(reasons[key] == (str(value), "as requested") for key, value in settings.items())
    assert found.recipe.phase_settings == {}


def test_a_list_is_kept_for_a_planned_phase() -> None:
    recipe = PRETENDED.with_settings({"strategy": "top", "phases.1.freeze_after": [1]})
    found = apply_strategy(recipe, "top", "as requested", build("mobilenetv3_small_050", "random"), 500)
    assert found.recipe.phases[1].freeze_after == (1,)
    assert ("phases.1.freeze_after", "[1]") in [(choice.setting, choice.value) for choice in found.choices]


def test_a_setting_that_does_not_fit_the_planned_phase_is_refused() -> None:
    recipe = PRETENDED.with_settings({"strategy": "scratch", "phases.0.solver": "lbfgs"})
    with pytest.raises(RecipeError, match="phase scratch: solver lbfgs needs cut head"):
        apply_strategy(recipe, "scratch", "as requested", build("mobilenetv3_small_050", "random"), 500)


@pytest.mark.parametrize(("strategy", "key"), [("head", "phases.1.lr"), ("scratch", "phases.1.epochs")])
def test_a_setting_of_a_phase_that_a_strategy_does_not_have_is_refused(strategy: Strategy, key: str) -> None:
    recipe = PRETENDED.with_settings({key: 5, "strategy": strategy})
    with pytest.raises(RecipeError, match=rf"^{key}: strategy {strategy} plans 1 phase, numbered from 0"):
        apply_strategy(recipe, strategy, "as requested", build("mobilenetv3_small_050", "random"), 500)
