"""How steps are run, with a timer that has a CUDA device and answers from a table."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from thaw.backbones.stages import AtCut
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head
from thaw.errors import RecipeError
from thaw.planning.step_timer import StepMode, StepTimer, _Timing
from thaw.planning.step_timings import StepTimings, assumed_steps, time_steps
from thaw.recipe import DecodeSettings, Phase, PreprocessingSettings, Recipe

Rate = Callable[[StepMode], float]
"""Images per second."""


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 0)
    return Classifier(backbone, new_head(backbone, 2), ("a", "b"), "multiclass", DecodeSettings())


def timings(
    classifier: Classifier, rate: Rate, recipe: Recipe, images: int, distance: float = 0.0, processes: int = 1
) -> StepTimings:
    class Timer(StepTimer):
        is_cuda = True

        def _time(self, index: int, mode: StepMode, wanted: float) -> _Timing:
            return _Timing(rate(mode), distance)

    classifier.backbone.use_memory_format("contiguous")

    at, start, found = AtCut.above_nothing(torch.randn(4, 3, 64, 64)), 0, []
    for cut in ("stages:2", "head"):
        position = classifier.backbone.cut(cut).position
        with torch.no_grad():
            at, start = classifier.backbone.advance(at, start, position), position
        found.append(at)
    timer = Timer(classifier, recipe.phases, (found[1], found[0]))
    return time_steps(recipe, timer, found[1], images, processes)


def faster_captured_and_in_large_batches(mode: StepMode) -> float:
    rates = {"eager": 1_000.0, "cuda_graph": 3_000.0, "compiled": 4_000.0}
    return rates[mode.steps] * min(mode.batch_size, 128) / 32


def test_steps_are_captured_where_that_is_faster_and_agrees(classifier: Classifier) -> None:
    found = timings(classifier, faster_captured_and_in_large_batches, two_phases(), 1_000)
    assert found.steps.value == "cuda_graph" and "3.00x" in found.steps.reason
    differs = timings(classifier, faster_captured_and_in_large_batches, two_phases(), 1_000, distance=0.2)
    assert differs.steps.value == "eager" and "gradients differ by 20.0%" in differs.steps.reason
    several = timings(classifier, faster_captured_and_in_large_batches, two_phases(), 1_000, processes=2)
    assert several.steps.value == "eager" and "several processes" in several.steps.reason


def test_the_speed_of_a_batch_that_does_not_fit_is_that_of_one_that_was_halved_until_it_does(
    classifier: Classifier,
) -> None:
    recipe = two_phases().with_settings({"phases.1.batch_size": 64})
    found = timings(classifier, lambda mode: 0.0 if mode.batch_size > 16 else 500.0, recipe, 1_000)
    assert found.rates[1] == 500
    hopeless = timings(classifier, lambda mode: 0.0, recipe, 1_000)
    assert all(rate > 0 for rate in hopeless.rates)


def test_steps_are_captured_once_to_be_timed_and_compared(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures: list[nn.Module] = []
    monkeypatch.setattr(
        torch.cuda, "make_graphed_callables", lambda module, *_, **__: captures.append(module) or module
    )
    head = AtCut.above_nothing(torch.randn(4, classifier.backbone.feature_width))
    timer, eager = StepTimer(classifier, two_phases().phases[:1], (head,)), StepMode("fp32", "eager", "contiguous", 4)
    captured = replace(eager, steps="cuda_graph")
    assert timer.speedup(0, captured, eager) > 0 and timer.distance(0, captured) == 0 and timer.rate(0, captured) > 0
    assert len(captures) == 1


def test_a_network_that_cannot_be_captured_trains_eagerly(classifier: Classifier) -> None:
    def rate(mode: StepMode) -> float:
        if mode.steps == "cuda_graph":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return 1_000.0

    found = timings(classifier, rate, two_phases(), 1_000)
    assert found.steps.value == "eager" and "not permitted when stream is capturing)" in found.steps.reason


def test_steps_are_compiled_where_training_is_long(classifier: Classifier) -> None:
    found = timings(classifier, faster_captured_and_in_large_batches, two_phases(), 1_000_000)
    assert found.steps.value == "compiled" and "1.33x" in found.steps.reason


def test_where_compiling_fails_steps_stay_as_they_are_unless_the_recipe_asks_for_compiled_ones(
    classifier: Classifier,
) -> None:
    def rate(mode: StepMode) -> float:
        if mode.steps == "compiled":
            raise RuntimeError("no C++ compiler\n100 lines")
        return faster_captured_and_in_large_batches(mode)

    found = timings(classifier, rate, two_phases(), 1_000_000).steps
    assert found.value == "cuda_graph"
    assert found.reason.endswith("; compiling fails here (RuntimeError: no C++ compiler)")
    asked = two_phases().model_copy(update={"steps": "compiled"})
    with pytest.raises(RecipeError, match=r"^steps compiled: fails here \(.*: no C\+\+ compiler\); use auto$"):
        timings(classifier, rate, asked, 1_000)


@pytest.mark.parametrize(("images", "expected"), [(1_000, 32), (4_000, 64), (20_000, 128)])
def test_a_batch_is_the_smallest_that_is_nearly_as_fast_as_any_and_leaves_enough_steps(
    classifier: Classifier, images: int, expected: int
) -> None:
    found = timings(classifier, faster_captured_and_in_large_batches, two_phases(), images)
    # A linear head is solved with all images at once.
    assert found.batch_sizes == (32, expected)
    mode = StepMode("fp32", "cuda_graph", "contiguous", expected)
    assert found.rates[1] == faster_captured_and_in_large_batches(mode)


@pytest.mark.parametrize(("images", "expected"), [(10_000, "contiguous"), (100_000, "channels_last")])
def test_depthwise_networks_are_laid_out_anew_where_training_is_long(
    classifier: Classifier, images: int, expected: str
) -> None:
    def rate(mode: StepMode) -> float:
        return 2_000.0 if mode.memory_format == "channels_last" else 1_000.0 + 1_000.0 * (mode.steps == "cuda_graph")

    found = timings(classifier, rate, two_phases(epochs=10).model_copy(update={"steps": "eager"}), images)
    assert found.memory_format.value == expected == classifier.backbone.memory_format
    assert found.memory_format.reason


def test_several_processes_have_a_batch_each(classifier: Classifier) -> None:
    found = timings(classifier, faster_captured_and_in_large_batches, two_phases(), 40_000, processes=2)
    assert found.batch_sizes == (32, 256)


def test_what_the_recipe_says_stays(classifier: Classifier) -> None:
    head, top = two_phases().phases
    asked = Recipe(steps="eager", precision="bf16", phases=(head, replace_batch(top, 48)))
    found = timings(classifier, faster_captured_and_in_large_batches, asked, 100_000)
    assert (found.steps.value, found.precision.value, found.batch_sizes) == ("eager", "bf16", (32, 48))


def test_steps_that_this_run_cannot_have_are_refused(classifier: Classifier) -> None:
    recipe = two_phases().model_copy(update={"steps": "cuda_graph"})
    timer = StepTimer(classifier, recipe.phases, ())
    with pytest.raises(
        RecipeError, match="steps cuda_graph: needs a CUDA device, and this run trains on cpu; use auto"
    ):
        time_steps(recipe, timer, AtCut.above_nothing(torch.zeros(1, 3)), 1_000, 1)
    with pytest.raises(RecipeError, match="steps cuda_graph: needs a CUDA device"):
        assumed_steps(recipe, timer, 100.0, 1)
    with pytest.raises(RecipeError, match="steps cuda_graph: is for one process, and 2 train together; use auto"):
        timings(classifier, faster_captured_and_in_large_batches, recipe, 1_000, processes=2)


def test_before_steps_are_timed_a_head_takes_no_time_and_thawed_stages_that_of_the_network(
    classifier: Classifier,
) -> None:
    recipe = two_phases()
    found = assumed_steps(recipe, StepTimer(classifier, recipe.phases, ()), 100.0, 1)
    assert found.rates == (math.inf, 100.0) and found.steps.value == "eager" and found.precision.value == "fp32"


def test_a_batch_that_does_not_fit_into_memory_is_not_taken(classifier: Classifier) -> None:
    def rate(mode: StepMode) -> float:
        if mode.batch_size > 64:
            raise torch.OutOfMemoryError
        return 30.0 * mode.batch_size

    assert timings(classifier, rate, two_phases(), 100_000).batch_sizes == (32, 64)


def test_timing_changes_neither_weights_nor_what_is_frozen(classifier: Classifier) -> None:
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    position = classifier.backbone.cut("stages:2").position
    with torch.no_grad():
        at = classifier.backbone.advance(AtCut.above_nothing(torch.randn(4, 3, 64, 64)), 0, position)
        head = classifier.backbone.advance(at, position, classifier.backbone.head_position)
    found = time_steps(two_phases(), StepTimer(classifier, two_phases().phases, (head, at)), head, 1_000, 1)
    assert (found.steps.value, found.steps.reason, found.batch_sizes) == ("eager", "", (32, 32))
    assert (found.memory_format.value, found.memory_format.reason) == ("channels_last", "")
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not any(parameter.requires_grad for parameter in classifier.backbone.parameters())
    assert all(rate > 0 for rate in found.rates)


def test_a_layout_for_cuda_devices_is_not_written_into_a_plan_for_the_cpu(classifier: Classifier) -> None:
    recipe = two_phases().model_copy(update={"memory_format": "contiguous", "phases": two_phases().phases[:1]})
    head = AtCut.above_nothing(torch.randn(4, classifier.backbone.feature_width))
    found = time_steps(recipe, StepTimer(classifier, recipe.phases, (head,)), head, 1_000, 1).memory_format
    assert (found.value, found.reason) == ("channels_last", "contiguous is for CUDA devices")


def two_phases(epochs: int = 20) -> Recipe:
    return Recipe(
        phases=(
            Phase(name="head", cut="head", epochs=20, lr=3e-3),
            Phase(name="top", cut="stages:2", epochs=epochs, lr=1e-4),
        )
    )


def replace_batch(phase: Phase, batch_size: int) -> Phase:
    return phase.model_copy(update={"batch_size": batch_size})
