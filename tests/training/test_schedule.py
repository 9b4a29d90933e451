import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.recipe import Phase
from thaw.training.schedule import factor_at

SCHEDULES = ["constant", "cosine", "cosine_restarts", "plateau", "one_cycle"]


def make_phase(**values: Any) -> Phase:
    return Phase(**{"name": "p", "cut": "head", "epochs": 10, "lr": 1e-3, **values})


def curve(phase: Phase, steps_per_epoch: int = 7) -> list[float]:
    return [factor_at(phase, step, steps_per_epoch) for step in range(phase.epochs * steps_per_epoch)]


@given(
    schedule=st.sampled_from(SCHEDULES),
    epochs=st.integers(1, 40),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 50),
)
def test_the_factor_stays_between_zero_and_one(schedule: str, epochs: int, steps: int, warmup: float) -> None:
    factors = curve(make_phase(schedule=schedule, epochs=epochs, warmup_epochs=warmup), steps)
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    assert max(factors) > 0.0


def test_cosine_decays_to_zero() -> None:
    factors = curve(make_phase(schedule="cosine"))
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] < 0.01


def test_cosine_restarts_return_to_the_peak_twice() -> None:
    factors = curve(make_phase(schedule="cosine_restarts", epochs=9))
    rises = [now for before, now in itertools.pairwise(factors) if now > before]
    assert rises == [1.0, 1.0]


def test_one_cycle_rises_and_then_decays() -> None:
    factors = curve(make_phase(schedule="one_cycle"))
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[0] == pytest.approx(1 / 25)
    assert 0.25 < top / len(factors) < 0.35


def test_one_cycle_has_no_other_warm_up_than_its_own() -> None:
    assert curve(make_phase(schedule="one_cycle", warmup_epochs=2)) == curve(make_phase(schedule="one_cycle"))


def test_warm_up_rises_before_the_schedule_begins() -> None:
    factors = curve(make_phase(schedule="constant", warmup_epochs=2))
    assert factors[:14] == sorted(factors[:14])
    assert factors[13] < 1.0
    assert set(factors[14:]) == {1.0}
