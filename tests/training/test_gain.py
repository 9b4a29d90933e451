import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_history import phase, records
from thaw.training.gain import phase_gains, reason_to_skip, standard_error_of_difference, target_reached

PHASES = [phase(name="head"), phase(name="top", optional=True), phase(name="deeper", optional=True)]


def story(head: float, top: float | None = None) -> list:  # type: ignore[type-arg]
    return records([head], phase="head") + ([] if top is None else records([top], phase="top"))


def test_each_phase_is_told_by_what_it_beat() -> None:
    head, top = phase_gains(records([0.7, 0.8], phase="head") + records([0.85, 0.9, 0.6], phase="top"), "accuracy", 100)
    assert (head.before, head.epochs, head.best) == (None, 2, 0.8)
    assert (top.before, top.epochs, top.best, top.seconds) == (0.8, 3, 0.9, 3.0)
    assert top.gain == pytest.approx(0.1) and top.exceeds_standard_error


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10_000))
def test_noise_is_a_standard_error_that_falls_with_the_images(one: float, other: float, images: int) -> None:
    standard_error = standard_error_of_difference(one, other, images)
    assert 0 <= standard_error <= 1
    assert standard_error_of_difference(one, other, 4 * images) == pytest.approx(standard_error / 2)
    assert standard_error == pytest.approx(standard_error_of_difference(other, one, images))


def test_a_phase_that_is_not_optional_is_always_trained() -> None:
    assert reason_to_skip(story(1.0), [phase(name="head"), phase(name="top")], 1, "accuracy", 100) is None


def test_thawing_is_left_out_where_validation_has_no_mistake_left() -> None:
    assert "no mistake left" in str(reason_to_skip(story(1.0), PHASES, 1, "accuracy", 100))
    assert reason_to_skip(story(0.99), PHASES, 1, "accuracy", 100) is None


def test_thawing_goes_deeper_only_after_a_gain_beyond_noise() -> None:
    assert reason_to_skip(story(0.8, 0.9), PHASES, 2, "accuracy", 400) is None
    why = str(reason_to_skip(story(0.8, 0.81), PHASES, 2, "accuracy", 400))
    assert "deeper is left out" in why and "+1.0%" in why and "chance alone" in why
    assert "-10.0%" in str(reason_to_skip(story(0.8, 0.7), PHASES, 2, "accuracy", 400))


def test_thawing_goes_deeper_only_where_a_fifth_of_the_last_gain_would_show() -> None:
    why = str(reason_to_skip(story(0.8, 0.85), PHASES, 2, "accuracy", 400))
    assert "+5.0%" in why and "a fifth of that at best" in why
    assert reason_to_skip(story(0.8, 0.85), PHASES, 2, "accuracy", 40_000) is None


def test_with_the_loss_as_monitor_any_gain_counts() -> None:
    assert reason_to_skip(story(0.8, 0.8), PHASES, 2, "loss", 400) is not None
    assert phase_gains(story(0.8, 0.8), "loss", 400)[1].standard_error is None


def test_a_target_is_reached_when_its_lower_bound_is() -> None:
    reached = records([0.99])
    assert target_reached(reached, None, 10_000) is None
    assert target_reached([], {"accuracy": 0.5}, 100) is None
    assert target_reached(reached, {"accuracy": 0.97}, 100) is None
    assert "target reached" in str(target_reached(reached, {"accuracy": 0.97}, 10_000))
