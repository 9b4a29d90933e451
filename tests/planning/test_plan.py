from dataclasses import asdict, replace
from typing import get_args

import numpy as np
import pytest
import torch

from thaw.backbones.timm_backbone import build
from thaw.device import DeviceChoice
from thaw.errors import RecipeError
from thaw.features.probe import EngineChoice
from thaw.memory import MemoryUse
from thaw.planning.cache_plan import wanted_views
from thaw.planning.costs import GIB, Forecast, ImageCounts
from thaw.planning.measurements import Choice, Measurements, PlannedRecipe, ViewSizes
from thaw.planning.plan import Plan, resolve
from thaw.planning.step_timings import Chosen, StepTimings
from thaw.recipe import AugmentSettings, KeepPhase, MemoryFormat, PreprocessingSettings, Recipe, Steps
from thaw.selection.estimates import Estimates, Expected
from thaw.training.head_solver import PENALTIES

EAGER, LAST = Chosen[Steps]("eager"), Chosen[MemoryFormat]("channels_last")
MEASURED = Measurements(
    task="multiclass",
    images=ImageCounts(1000, 200, 100),
    imbalance=1.5,
    facts=build("mobilenetv3_small_050", "random", PreprocessingSettings(), "avg", 0).facts,
    device=DeviceChoice(torch.device("cpu"), "no GPU found; 2 cores"),
    engine=EngineChoice("openvino-fp32", "the fastest that agrees", 100.0),
    steps=StepTimings(Chosen("fp32", "bf16 is no faster"), EAGER, LAST, (32, 32), "", (10_000.0, 500.0)),
    threads=2,
    positions=(12, 8),
    sizes=(ViewSizes(2_000, 2_000), ViewSizes(100_000, 52_000)),
    trained_bytes=(0, 0),
    feature_width=1024,
    free_bytes=100 * GIB,
)


def planned(recipe: Recipe, measured: Measurements = MEASURED, estimates: Estimates | None = None) -> Plan:
    return resolve(PlannedRecipe(recipe, ()), measured, estimates)


def why(plan: Plan, setting: str) -> Choice:
    (choice,) = [choice for choice in plan.choices if choice.setting == setting]
    return choice


def test_after_the_plan_nothing_is_auto() -> None:
    resolved = planned(Recipe(), MEASURED).recipe
    assert "auto" not in resolved.to_yaml().split()
    assert [phase.inputs for phase in resolved.phases] == ["cached", "cached"]
    assert resolved.views == 2 and resolved.precision == "fp32" and resolved.monitor == "accuracy"
    assert resolved.engine == "openvino-fp32" and resolved.cache_dtype == "float16"


def test_the_number_of_threads_is_planned_with_its_reason() -> None:
    plan, asked = planned(Recipe()), planned(Recipe(threads=1), replace(MEASURED, threads=1))
    assert (plan.recipe.threads, why(plan, "threads").reason) == (2, "as many as PyTorch takes here")
    assert (asked.recipe.threads, why(asked, "threads").reason) == (1, "as requested")


def test_a_larger_batch_learns_at_a_higher_rate_and_says_so() -> None:
    steps = replace(MEASURED.steps, batch_sizes=(32, 128), batch_reason="32: 1,000/s, 128: 4,000/s")
    plan, usual = planned(Recipe(), replace(MEASURED, steps=steps)), planned(Recipe())
    assert [phase.batch_size for phase in plan.recipe.phases] == [32, 128]
    assert plan.recipe.phases[1].lr == 2 * usual.recipe.phases[1].lr
    assert plan.recipe.phases[0].lr == usual.recipe.phases[0].lr
    assert why(plan, "phases.1.batch_size").reason == "32: 1,000/s, 128: 4,000/s"
    assert why(plan, "phases.1.lr").reason.endswith("times 2 for the batch size")
    asked = planned(Recipe().with_settings({"phases.1.batch_size": 128}), replace(MEASURED, steps=steps))
    assert asked.recipe.phases[1].lr == usual.recipe.phases[1].lr


def test_what_was_asked_for_stays() -> None:
    asked = Recipe().with_settings(
        {"views": 3, "class_weights": "balanced", "monitor": "loss", "phases.1.inputs": "fresh", "cache_gb": 5}
    )
    plan = planned(asked, MEASURED)
    assert (plan.recipe.views, plan.recipe.class_weights, plan.recipe.monitor) == (3, "balanced", "loss")
    assert plan.recipe.phases[1].inputs == "fresh"
    assert {why(plan, name).reason for name in ("views", "monitor", "cache_gb", "phases.1.inputs")} == {"as requested"}


@pytest.mark.parametrize(
    ("imbalance", "weights", "monitor"), [(2.9, "none", "accuracy"), (3.1, "balanced", "balanced_accuracy")]
)
def test_imbalanced_classes_are_weighted_and_judged_alike(imbalance: float, weights: str, monitor: str) -> None:
    plan = planned(Recipe(), replace(MEASURED, imbalance=imbalance))
    assert (plan.recipe.class_weights, plan.recipe.monitor) == (weights, monitor)
    assert f"{imbalance:.1f}x" in why(plan, "class_weights").reason


SIMILAR, LOWER = Expected(0.987, 0.98, 0.99, 400, 400), Expected(0.8814, 0.8, 0.96, 400, 20)


@pytest.mark.parametrize(
    ("estimates", "keep", "reason"),
    [
        (
            Estimates(SIMILAR, LOWER, "scenes", differ=True),
            "standard_error",
            "validation is too optimistic: a linear head reaches 98.7% on images like these, 88.1% on unseen scenes",
        ),
        (
            Estimates(SIMILAR, LOWER, "scenes", differ=False),
            "any_gain",
            "validation is not clearly too optimistic: a linear head reaches 98.7% on images like these, 88.1% on "
            "unseen scenes",
        ),
        (Estimates(SIMILAR), "any_gain", "nothing indicates that validation is too optimistic"),
        (None, "any_gain", "nothing indicates that validation is too optimistic"),
    ],
)
def test_a_later_phase_needs_a_standard_error_where_validation_is_too_optimistic(
    estimates: Estimates | None, keep: str, reason: str
) -> None:
    plan = planned(Recipe(), estimates=estimates)
    assert (plan.recipe.keep_phase, plan.estimates) == (keep, estimates)
    assert why(plan, "keep_phase") == Choice("keep_phase", keep, reason)


def test_that_validation_is_too_optimistic_names_the_metric_that_says_so() -> None:
    plan = planned(Recipe(monitor="balanced_accuracy"), estimates=Estimates(SIMILAR, LOWER, "scenes", differ=True))
    assert why(plan, "keep_phase").reason == (
        "validation is too optimistic in balanced accuracy: a linear head reaches an accuracy of 98.7% on images like "
        "these, 88.1% on unseen scenes"
    )


@pytest.mark.parametrize("keep", get_args(KeepPhase))
@pytest.mark.parametrize("differ", [True, False])
def test_for_what_gain_a_phase_is_kept_stays_as_requested(keep: KeepPhase, differ: bool) -> None:
    plan = planned(Recipe(keep_phase=keep), estimates=Estimates(SIMILAR, LOWER, "scenes", differ))
    assert plan.recipe.keep_phase == keep
    assert why(plan, "keep_phase") == Choice("keep_phase", keep, "as requested")


def test_a_small_cache_first_takes_eight_bits_then_views_then_the_deepest_cut() -> None:
    whole = 102_000 * (2 * 1000 + 300)
    eight_bits = planned(Recipe(cache_gb=whole * 0.6 / GIB), MEASURED)
    assert (eight_bits.recipe.cache_dtype, eight_bits.recipe.views) == ("uint8", 2)
    assert "half precision would not fit" in why(eight_bits, "cache_dtype").reason
    fewer = planned(Recipe(cache_gb=whole * 0.4 / GIB), MEASURED)
    assert (fewer.recipe.cache_dtype, fewer.recipe.views) == ("uint8", 1)
    assert "2 would take" in why(fewer, "views").reason
    # Training and validation at both cuts, test at the lower one.
    assert fewer.forecast.disk_bytes == 54_000 * (1000 + 200) + 52_000 * 100
    shallow = planned(Recipe(cache_gb=0.02), MEASURED)
    assert [phase.inputs for phase in shallow.recipe.phases] == ["cached", "fresh"]
    assert (shallow.recipe.cache_dtype, shallow.recipe.views) == ("float16", 4)
    assert "more than the cache has" in why(shallow, "phases.1.inputs").reason
    none = planned(Recipe(cache_gb=0), MEASURED)
    assert [phase.inputs for phase in none.recipe.phases] == ["fresh", "fresh"]
    assert none.forecast.disk_bytes == 0


def test_what_is_cache_dtype_asked_gives_way_to_fewer_views() -> None:
    plan = planned(Recipe(cache_dtype="float16", cache_gb=102_000 * 2000 / GIB), MEASURED)
    assert (plan.recipe.cache_dtype, plan.recipe.views) == ("float16", 1)
    assert why(plan, "cache_dtype").reason == "as requested"


def test_without_augmentation_one_view_is_enough() -> None:
    plan = planned(Recipe(augment=AugmentSettings(preset="none")), MEASURED)
    assert plan.recipe.views == 1 and "all views are equal" in why(plan, "views").reason


@pytest.mark.parametrize(("images", "views"), [(100, 4), (4_000, 4), (5_000, 3), (20_000, 2), (1_000_000, 2)])
def test_more_images_need_fewer_views_of_each(images: int, views: int) -> None:
    assert wanted_views(Recipe(), [0], images)[0] == views


@pytest.mark.parametrize("images", [100, 5_000, 1_000_000])
def test_stages_need_fewer_views_than_a_head_alone(images: int) -> None:
    assert wanted_views(Recipe(), [0, 1], images)[0] == 2


def test_no_more_views_than_epochs() -> None:
    short = Recipe().with_settings({"phases.0.epochs": 3, "phases.1.epochs": 1})
    assert wanted_views(short, [0], 100)[0] == 3
    assert wanted_views(short, [1], 100)[0] == 1


def test_the_forecast_follows_from_the_rates() -> None:
    plan = planned(Recipe().with_settings({"phases.0.solver": "optimizer"}), MEASURED)
    assert plan.forecast.extraction_seconds == pytest.approx((2 * 1000 + 300) / 100)
    head, top = plan.forecast.phase_seconds
    assert head == pytest.approx(20 * (1000 / 10_000 + 200 / 25_000))
    assert top == pytest.approx(20 * (1000 / 500 + 200 / 1250))
    assert plan.forecast.seconds == pytest.approx(plan.forecast.extraction_seconds + head + top)
    assert plan.forecast.epoch_seconds == pytest.approx((head / 20, top / 20))
    assert Forecast.from_json(asdict(plan.forecast)) == plan.forecast


def test_checkpoints_take_time_by_what_any_phase_trains_and_the_state_of_the_optimizer() -> None:
    without, found = (
        planned(Recipe(), replace(MEASURED, trained_bytes=sizes)).forecast.epoch_seconds
        for sizes in ((0, 0), (1_000_000, 50_000_000))
    )
    assert np.subtract(found, without) == pytest.approx((102e6 / 100e6, 200e6 / 100e6))


def test_processes_share_what_is_extracted_and_trained_but_not_what_the_main_one_solves() -> None:
    recipe = Recipe().with_settings({"phases.1.inputs": "fresh"})
    one, two = (planned(recipe, replace(MEASURED, processes=count)).forecast for count in (1, 2))
    assert (one.processes, two.processes) == (1, 2)
    assert two.extraction_seconds == pytest.approx(one.extraction_seconds / 2)
    assert two.phase_seconds == pytest.approx((one.phase_seconds[0], one.phase_seconds[1] / 2))
    assert two.disk_bytes == one.disk_bytes
    assert Forecast.from_json(asdict(two)) == two


@pytest.mark.parametrize(
    ("now", "peak", "trained", "memory"),
    [
        pytest.param(1e9, 3e9, 1e6, 3e9, id="steps that were timed took the most"),
        pytest.param(3e9, 3e9, 1e6, 3e9 + 2 * 1000 * 4 * 1024, id="L-BFGS holds all views"),
        pytest.param(3e9, 3e9, 1e8, 3e9 + 4e8, id="AdamW holds its state"),
    ],
)
def test_memory_is_what_was_measured_and_what_the_largest_phase_adds(
    now: float, peak: float, trained: float, memory: float
) -> None:
    measured = replace(MEASURED, memory=MemoryUse(int(now), int(peak)), trained_bytes=(0, int(trained)))
    found = planned(Recipe(), measured).forecast
    assert found.memory_bytes == memory and Forecast.from_json(asdict(found)) == found


def test_logits_and_steps_of_many_outputs_take_memory() -> None:
    head = 1024 * 2000 * 4
    measured = replace(MEASURED, memory=MemoryUse(1, 1), trained_bytes=(head, 0))
    without, found = (
        planned(Recipe(), replace(measured, outputs=outputs)).forecast.memory_bytes for outputs in (0, 2000)
    )
    assert without == 1 + 2000 * 4 * 1024 + 2 * 39 * head
    assert found - without == 3 * 2000 * 2000 * 4


def test_a_head_of_many_outputs_takes_as_long_as_its_products_and_one_of_few_as_its_features_take_to_read() -> None:
    def seconds(measured: Measurements) -> float:
        return planned(Recipe(), measured).forecast.phase_seconds[0]

    few, many = replace(MEASURED, outputs=10), replace(MEASURED, outputs=2000, solving=1e11)
    assert seconds(few) == seconds(MEASURED)
    products = 39 * 4 * 2000 * MEASURED.feature_width * 2000 / 1e11
    assert seconds(many) == pytest.approx(len(PENALTIES) * (products + 200 / 25_000))
    assert seconds(replace(many, outputs=1)) == seconds(MEASURED)


@pytest.mark.parametrize(("outputs", "solver"), [(200, "lbfgs"), (2000, "optimizer")])
def test_a_head_whose_features_fit_is_solved_unless_its_many_logits_do_not(outputs: int, solver: str) -> None:
    measured = replace(MEASURED, images=ImageCounts(90_000, 200, 100), outputs=outputs)
    plan = planned(Recipe(cache_gb=10_000), measured)
    assert plan.recipe.phases[0].solver == solver
    assert ("GiB of memory" in why(plan, "phases.0.solver").reason) == (solver == "optimizer")


def test_a_head_that_is_one_linear_layer_is_solved_where_its_features_fit_into_memory() -> None:
    plan = planned(Recipe(), MEASURED)
    assert [phase.solver for phase in plan.recipe.phases] == ["lbfgs", "optimizer"]
    assert plan.recipe.phases[0].epochs == len(PENALTIES)
    width, seconds = MEASURED.feature_width, plan.forecast.phase_seconds[0]
    assert seconds == pytest.approx(len(PENALTIES) * (39 * 2 * 2000 * width * 4 / 4e9 + 200 / 25_000))


@pytest.mark.parametrize(
    ("settings", "images", "reason"),
    [
        ({"head.hidden": [64]}, 1000, "more than a linear head"),
        ({"phases.0.mixup": 0.2}, 1000, "more than a linear head"),
        ({"phases.0.inputs": "fresh"}, 1000, "not cached"),
        ({}, 1_000_000, "GiB of memory"),
    ],
)
def test_else_it_is_trained_step_by_step(settings: dict[str, object], images: int, reason: str) -> None:
    plan = planned(
        Recipe(cache_gb=10_000).with_settings(settings), replace(MEASURED, images=ImageCounts(images, 200, 100))
    )
    assert plan.recipe.phases[0].solver == "optimizer" and plan.recipe.phases[0].epochs == 20
    assert reason in why(plan, "phases.0.solver").reason


def test_a_setting_that_l_bfgs_does_not_use_is_named_in_the_reason() -> None:
    settings = {"phases.0.lr": 1e-2, "phases.0.epochs": 50, "phases.0.patience": 1, "head.dropout": 0.4}
    reason = why(planned(Recipe().with_settings(settings)), "phases.0.solver").reason
    assert reason.endswith("; lr, patience, epochs above 9, head.dropout would need solver optimizer")
    assert "would need" not in why(planned(Recipe()), "phases.0.solver").reason


@pytest.mark.parametrize("why_fresh", [{"phases.0.inputs": "fresh"}, {"cache_gb": 0}])
def test_l_bfgs_is_refused_where_it_would_see_no_augmented_view(why_fresh: dict[str, object]) -> None:
    asked = Recipe().with_settings({"phases.0.solver": "lbfgs", **why_fresh})
    with pytest.raises(RecipeError, match=r"^phases\.0\.solver: lbfgs fits cached views"):
        planned(asked)
    assert planned(asked.with_settings({"augment.preset": "none"})).recipe.phases[0].solver == "lbfgs"


def test_whole_network_training_reads_fresh_pixels() -> None:
    plan = planned(
        Recipe(phases=(Recipe().phases[1],)),
        replace(
            MEASURED,
            positions=(0,),
            sizes=(ViewSizes(1, 1),),
            steps=StepTimings(Chosen("fp32", "as requested"), EAGER, LAST, (32,), "", (10.0,)),
        ),
    )
    assert plan.recipe.phases[0].inputs == "fresh" and why(plan, "phases.0.inputs").reason == "nothing is frozen"
