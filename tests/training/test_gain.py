import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_history import phase, records
from thaw.training.gain import phase_gains, reason_to_skip, standard_error_of_difference, target_reached

PHASES = [phase(name="head"), phase(name="top", optional=True), phase(name="deeper", optional=True)]


def history(head: float, top: float | None = None) -> list:  # type: ignore[type-arg]
    return records([head], phase="head") + ([] if top is None else records([top], phase="top"))


def test_the_gain_of_a_phase_is_over_the_best_of_earlier_phases() -> None:
    head, top = phase_gains(records([0.7, 0.8], phase="head") + records([0.85, 0.9, 0.6], phase="top"), "accuracy", 100)
    assert (head.before, head.epochs, head.best) == (None, 2, 0.8)
    assert (top.before, top.epochs, top.best, top.seconds) == (0.8, 3, 0.9, 3.0)
    assert top.gain == pytest.approx(0.1) and top.exceeds_standard_error


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10_000))
def test_the_standard_error_decreases_with_the_number_of_images(first: float, second: float, images: int) -> None:
    standard_error = standard_error_of_difference(first, second, images)
    assert 0 <= standard_error <= 1
    assert standard_error_of_difference(first, second, 4 * images) == pytest.approx(standard_error / 2)
    assert standard_error == pytest.approx(standard_error_of_difference(second, first, images))


def test_a_phase_that_is_not_optional_is_never_skipped() -> None:
    assert reason_to_skip(history(1.0), [phase(name="head"), phase(name="top")], 1, "accuracy", 100) is None


def test_an_optional_phase_is_skipped_if_validation_is_perfect() -> None:
    assert "validation accuracy is perfect" in str(reason_to_skip(history(1.0), PHASES, 1, "accuracy", 100))
    assert reason_to_skip(history(0.99), PHASES, 1, "accuracy", 100) is None


def test_thawing_deeper_needs_a_gain_above_one_standard_error() -> None:
    assert reason_to_skip(history(0.8, 0.9), PHASES, 2, "accuracy", 400) is None
    assert reason_to_skip(history(0.8, 0.81), PHASES, 2, "accuracy", 400) == (
        "phase deeper is skipped: phase top gained 1.0 points of validation accuracy, within one standard error (2.2)"
    )
    assert reason_to_skip(history(0.8, 0.7), PHASES, 2, "accuracy", 400) == (
        "phase deeper is skipped: phase top lost 10.0 points of validation accuracy"
    )


def test_thawing_deeper_needs_a_fifth_of_the_last_gain_to_exceed_one_standard_error() -> None:
    reason = str(reason_to_skip(history(0.8, 0.85), PHASES, 2, "accuracy", 400))
    assert "gained 5.0 points" in reason and "the fifth of that" in reason
    assert reason_to_skip(history(0.8, 0.85), PHASES, 2, "accuracy", 40_000) is None


def test_any_decrease_of_a_monitored_loss_is_a_gain() -> None:
    reason = str(reason_to_skip(history(0.8, 0.8), PHASES, 2, "loss", 400))
    assert reason.endswith("phase top lowered validation loss by 0.0000")
    assert phase_gains(history(0.8, 0.8), "loss", 400)[1].standard_error is None


def test_a_target_is_reached_once_the_lower_bound_reaches_it() -> None:
    reached = records([0.99])
    assert target_reached(reached, None, 10_000) is None
    assert target_reached([], {"accuracy": 0.5}, 100) is None
    assert target_reached(reached, {"accuracy": 0.97}, 100) is None
    assert target_reached(reached, {"accuracy": 0.97}, 10_000) == (
        "target reached on 10,000 validation images: accuracy 99.0% (98.8% to 99.2%)"
    )
