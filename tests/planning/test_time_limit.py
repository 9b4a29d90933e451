"""Phases that fit into a time limit."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.clock import CONCLUDING_SECONDS, Clock, concluding_seconds
from thaw.planning.costs import Forecast
from thaw.planning.time_limit import LEAST_EPOCHS, TimeLimit, shortened
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase
from thaw.selection.budget import default_seconds, longest_training

DEEPER = Phase(name="deeper", cut="stages:5", epochs=10, lr=1e-4, optional=True)
TOP = (HEAD_PHASE, FINE_TUNE_PHASE, DEEPER)


def taking(phases: Sequence[Phase], *epoch_seconds: float, extraction: float = 10.0) -> Forecast:
    """A forecast for phases, given the seconds of an epoch of each."""
    seconds = tuple(phase.epochs * each for phase, each in zip(phases, epoch_seconds, strict=True))
    return Forecast(extraction, seconds, epoch_seconds, 0)


def test_phases_that_fit_stay_as_they_are() -> None:
    forecast = taking(TOP, 0.1, 2.0, 4.0)
    assert shortened(TOP, forecast, forecast.seconds) == TOP


def test_the_deepest_optional_phase_goes_first() -> None:
    forecast = taking(TOP, 0.1, 2.0, 4.0)
    assert shortened(TOP, forecast, forecast.seconds - 1) == TOP[:2]


def test_then_thawed_stages_have_fewer_epochs_and_the_head_as_many() -> None:
    phases = shortened(TOP, taking(TOP, 0.1, 2.0, 4.0), 10 + 2 + 2 * 7.5)
    assert [phase.epochs for phase in phases] == [HEAD_PHASE.epochs, 7]


def test_there_are_no_fewer_epochs_than_are_worth_their_time() -> None:
    phases = shortened(TOP, taking(TOP, 0.1, 2.0, 4.0), 1.0)
    assert phases[1].epochs == LEAST_EPOCHS
    few = (HEAD_PHASE, FINE_TUNE_PHASE.model_copy(update={"epochs": 2}))
    assert shortened(few, taking(few, 0.1, 2.0), 1.0) == few


@pytest.mark.parametrize("setting", ["epochs", "freeze_after", "warmup_epochs"])
def test_what_was_asked_for_stays(setting: str) -> None:
    forecast = taking(TOP, 0.1, 2.0, 4.0)
    phases = shortened(TOP, forecast, 1.0, fixed=[f"phases.1.{setting}", "phases.2.lr"])
    assert [phase.epochs for phase in phases] == [HEAD_PHASE.epochs, FINE_TUNE_PHASE.epochs, LEAST_EPOCHS]


def test_random_weights_keep_their_epochs() -> None:
    scratch = (Phase(name="scratch", cut="pixels", epochs=60, lr=1e-3),)
    assert shortened(scratch, taking(scratch, 10.0), 1.0) == scratch


@given(
    epoch_seconds=st.tuples(*[st.floats(0.01, 100)] * 3),
    extraction=st.floats(0, 1_000),
    seconds=st.floats(-100, 10_000),
    fixed=st.sets(st.sampled_from(["phases.1.epochs", "phases.1.lr", "phases.2.lr", "phases.2.warmup_epochs"])),
)
def test_what_is_shortened_fits_or_is_the_least(
    epoch_seconds: tuple[float, ...], extraction: float, seconds: float, fixed: set[str]
) -> None:
    phases = shortened(TOP, taking(TOP, *epoch_seconds, extraction=extraction), seconds, fixed)
    needed = taking(phases, *epoch_seconds[: len(phases)], extraction=extraction).seconds
    is_fixed = ["phases.1.epochs" in fixed, "phases.2.warmup_epochs" in fixed]
    least = [
        full.epochs if stays else LEAST_EPOCHS for full, stays, _ in zip(TOP[1:], is_fixed, phases[1:], strict=False)
    ]
    assert needed <= seconds + 1e-6 or [phase.epochs for phase in phases[1:]] == least


def test_of_two_phases_that_must_stay_the_deeper_one_is_shortened_first() -> None:
    phases = shortened(TOP, taking(TOP, 0.1, 2.0, 4.0), 36.0, fixed=["phases.2.lr"])
    assert [phase.epochs for phase in phases[1:]] == [LEAST_EPOCHS, LEAST_EPOCHS]
    assert taking(phases, 0.1, 2.0, 4.0).seconds == pytest.approx(36.0)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time goes by."""
    monkeypatch.setattr(Clock, "elapsed", 0.0)


def limit(seconds: float, trainings: int = 1) -> TimeLimit:
    return TimeLimit(Clock(seconds), trainings)


@pytest.mark.usefixtures("still")
def test_measurements_and_the_end_come_out_of_the_limit() -> None:
    assert limit(115.0).left == 100.0
    assert limit(115.0).for_training(None) == 100.0
    assert limit(115.0).for_training(0.0) == pytest.approx(100 / (1 + 1 / 8))
    assert limit(115.0).for_training(spent=9.0, given=40.0) == 69.0
    assert limit(115.0).for_training(spent=90.0, given=40.0) == 100.0
    assert limit(115.0, trainings=3).for_training(0.0, given=40.0) == 20.0


@pytest.mark.usefixtures("still")
def test_more_is_left_for_the_end_where_many_images_of_many_classes_are_evaluated() -> None:
    assert concluding_seconds(3_000, 200) == concluding_seconds(400, 10) == CONCLUDING_SECONDS
    seconds = concluding_seconds(30_000, 2_000)
    assert 60 < seconds < 120 and TimeLimit(Clock(600.0), concluding=seconds).left == 600.0 - seconds


@given(seconds=st.floats(20, 10_000), trainings=st.integers(1, 3))
def test_trainings_and_what_is_measured_for_them_fit(seconds: float, trainings: int) -> None:
    training = longest_training(seconds, trainings)
    assert trainings * training + default_seconds(training) <= seconds * (1 + 1e-9)


@pytest.mark.usefixtures("still")
def test_the_reason_says_whether_training_fits() -> None:
    forecast = taking(TOP[:2], 0.1, 1.0)
    kept = limit(134.0).choice(forecast, TOP[2:])
    assert (kept.setting, kept.value) == ("time_limit", "134 s")
    assert kept.reason == (
        "training should take 32 s at most, of the 119 s that are left for it; phase deeper is left out"
    )
    exceeded = limit(30.0).choice(forecast, ())
    assert exceeded.reason.startswith("exceeded by up to 17 s: training should take 32 s at most, of the 15 s")
    several = limit(3600.0, trainings=3).choice(forecast, ())
    assert several.value == "60 min" and several.reason.startswith("3 trainings should take 96 s at most")


@pytest.mark.usefixtures("still")
def test_a_limit_that_has_passed_leaves_nothing() -> None:
    assert limit(5.0).choice(taking(TOP, 0.1, 1.0, 1.0), ()).reason.endswith("of the 0.0 s that are left for it")
