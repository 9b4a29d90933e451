"""Phases that fit into a limit of time."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.planning.costs import Forecast
from thaw.planning.time_limit import LEAST_EPOCHS, limit_choices, shortened
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase, Recipe

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


def test_settings_that_were_asked_for_stay() -> None:
    forecast = taking(TOP, 0.1, 2.0, 4.0)
    phases = shortened(TOP, forecast, 1.0, fixed=["phases.1.epochs", "phases.2.lr"])
    assert [phase.epochs for phase in phases] == [HEAD_PHASE.epochs, FINE_TUNE_PHASE.epochs, LEAST_EPOCHS]


@given(
    epoch_seconds=st.tuples(*[st.floats(0.01, 100)] * 3),
    extraction=st.floats(0, 1_000),
    seconds=st.floats(-100, 10_000),
)
def test_what_is_shortened_fits_or_is_the_least(
    epoch_seconds: tuple[float, ...], extraction: float, seconds: float
) -> None:
    phases = shortened(TOP, taking(TOP, *epoch_seconds, extraction=extraction), seconds)
    needed = taking(phases, *epoch_seconds[: len(phases)], extraction=extraction).seconds
    assert needed <= seconds + 1e-6 or [phase.epochs for phase in phases[1:]] == [LEAST_EPOCHS]


def test_the_reasons_name_what_has_changed() -> None:
    recipe = Recipe(time_limit=120.0, phases=(HEAD_PHASE, FINE_TUNE_PHASE.model_copy(update={"epochs": 6})))
    epochs, limit = limit_choices(TOP, recipe, seconds=70.0, left=90.0)
    assert (epochs.setting, epochs.value) == ("phases.1.epochs", "6")
    assert epochs.reason == "instead of 20, to fit into the time limit"
    assert (limit.setting, limit.value) == ("time_limit", "2 min")
    assert limit.reason == (
        "measuring and training take 70 s at most, of the 90 s that are left for it; phase deeper is left out"
    )


@pytest.mark.parametrize("left", [60.0, -5.0])
def test_a_limit_that_cannot_be_kept_is_said(left: float) -> None:
    [limit] = limit_choices(TOP, Recipe(time_limit=120.0, phases=TOP), seconds=70.0, left=left)
    assert limit.reason.startswith("exceeded: measuring and training may take 70 s, more than the ")
