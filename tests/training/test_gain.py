import math
from dataclasses import asdict, replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_history import records
from thaw.metrics import MetricValues
from thaw.recipe import KeepPhase
from thaw.training.gain import (
    KEPT_FOR,
    KeepRule,
    PhaseGain,
    gain_text,
    kept_index,
    kept_record,
    phase_gain,
    phase_gains,
    standard_error_of_difference,
    target_reached,
)
from thaw.training.history import EpochRecord

IMAGES = 40
ANY_GAIN = KeepRule("accuracy", IMAGES, "any_gain")
STANDARD_ERROR = KeepRule("accuracy", IMAGES, "standard_error")
RULES = st.sampled_from([ANY_GAIN, STANDARD_ERROR])
PREDICTIONS = st.lists(st.booleans(), min_size=IMAGES, max_size=IMAGES)


def epoch(phase: str, correct: list[bool], number: int = 1) -> EpochRecord:
    """An epoch that predicts these validation images correctly."""
    flags = np.array(correct, float)
    without = tuple(((flags.sum() - flags) / (len(flags) - 1)).tolist())
    (record,) = records([float(flags.mean())], phase=phase)
    return replace(record, epoch=number, without=without)


def right(images: range, of: int = IMAGES) -> list[bool]:
    return [index in images for index in range(of)]


def outcomes(rule: KeepRule, *history: EpochRecord) -> dict[str, bool]:
    return {gain.phase: gain.is_kept for gain in phase_gains(history, rule)}


def test_each_rule_is_said_in_words() -> None:
    assert set(KEPT_FOR) == set(get_args(KeepPhase))


def test_where_a_standard_error_is_needed_it_is_that_of_the_difference_on_the_same_images() -> None:
    # Four more images, without an error that is new: a gain of 10 points, with a standard error of 4.8.
    same = epoch("head", right(range(30))), epoch("top", right(range(34)))
    # The same gain by other images, ten lost for fourteen won: the standard error is 12.3.
    others = epoch("head", right(range(30))), epoch("top", right(range(6, 40)))
    fewer = epoch("head", right(range(24))), epoch("top", right(range(12, 40)))
    assert outcomes(STANDARD_ERROR, *same) == {"head": True, "top": True}
    assert outcomes(STANDARD_ERROR, *others) == outcomes(STANDARD_ERROR, *fewer) == {"head": True, "top": False}
    assert all(outcomes(ANY_GAIN, *pair) == {"head": True, "top": True} for pair in (same, others, fewer))


def test_one_image_more_is_exactly_one_standard_error_which_only_any_gain_keeps() -> None:
    for images in range(2, 30):
        head, top = epoch("head", right(range(1), images)), epoch("top", right(range(2), images))
        (_, needed), (_, kept) = (
            phase_gains([head, top], replace(rule, images=images)) for rule in (STANDARD_ERROR, ANY_GAIN)
        )
        assert needed.gain == pytest.approx(needed.standard_error) and not needed.is_kept
        assert kept == replace(needed, is_kept=True)


@given(PREDICTIONS, PREDICTIONS)
def test_a_phase_that_is_kept_did_better_and_equal_predictions_leave_the_simpler(
    head: list[bool], top: list[bool]
) -> None:
    (_, gain) = phase_gains([epoch("head", head), epoch("top", top)], STANDARD_ERROR)
    assert gain.standard_error is not None
    assert gain.is_kept == (gain.gain > gain.standard_error + 1e-9)
    assert not gain.is_kept or sum(top) > sum(head) + 1
    (_, any_gain) = phase_gains([epoch("head", head), epoch("top", top)], ANY_GAIN)
    assert any_gain.is_kept == (sum(top) > sum(head))
    assert replace(any_gain, is_kept=gain.is_kept) == gain
    for rule in (ANY_GAIN, STANDARD_ERROR):
        assert outcomes(rule, epoch("head", head), epoch("top", head)) == {"head": True, "top": False}


def test_a_tie_leaves_the_simpler_one_also_at_a_lower_loss() -> None:
    head, top = epoch("head", right(range(30))), epoch("top", right(range(30)))
    lower = replace(top, val=MetricValues({**top.val.by_name, "loss": top.val.loss / 2}))
    assert outcomes(ANY_GAIN, head, lower) == {"head": True, "top": False}


@given(PREDICTIONS, PREDICTIONS)
def test_the_outcome_says_why_a_phase_is_not_kept(head: list[bool], top: list[bool]) -> None:
    history = epoch("head", head), epoch("top", top)
    (_, needed), (_, any_gain) = (phase_gains(history, rule) for rule in (STANDARD_ERROR, ANY_GAIN))
    gained = sum(top) > sum(head)
    assert any_gain.outcome == ("kept" if gained else "not kept")
    assert needed.outcome == (
        "kept" if needed.is_kept else "not kept: within one standard error" if gained else "not kept"
    )


@given(RULES, PREDICTIONS, PREDICTIONS, st.integers(0, IMAGES - 1))
def test_one_more_image_right_never_costs_a_phase_its_place(
    rule: KeepRule, head: list[bool], top: list[bool], image: int
) -> None:
    better = [flag or index == image for index, flag in enumerate(top)]
    before, after = (outcomes(rule, epoch("head", head), epoch("top", each))["top"] for each in (top, better))
    assert after or not before


@given(RULES, st.lists(PREDICTIONS, min_size=1, max_size=5))
def test_each_phase_is_compared_with_the_last_that_was_kept(rule: KeepRule, phases: list[list[bool]]) -> None:
    history = [epoch(f"phase {number}", correct) for number, correct in enumerate(phases)]
    gains = phase_gains(history, rule)
    kept = history[0]
    for record, gain in zip(history[1:], gains[1:], strict=True):
        assert gain.before == kept.val["accuracy"]
        kept = record if gain.is_kept else kept
    assert kept_record(history, gains, "accuracy") == kept
    values = [record.val["accuracy"] for record, gain in zip(history, gains, strict=True) if gain.is_kept]
    assert values == sorted(values)


@given(RULES, st.lists(PREDICTIONS, min_size=2, max_size=6), st.data())
def test_what_is_decided_of_a_phase_does_not_change_with_later_ones(
    rule: KeepRule, phases: list[list[bool]], data: st.DataObject
) -> None:
    history = [epoch(f"phase {number // 2}", correct, number % 2 + 1) for number, correct in enumerate(phases)]
    done = 2 * data.draw(st.integers(1, len(phases) // 2))
    gains = phase_gains(history, rule)
    assert phase_gains(history[:done], rule) == gains[: done // 2]


def test_the_epoch_that_is_kept_is_the_best_of_the_last_phase_that_is_kept() -> None:
    head = [epoch("head", right(range(20))), epoch("head", right(range(30)), 2), epoch("head", right(range(25)), 3)]
    top = [epoch("top", right(range(31))), epoch("top", right(range(5)), 2)]
    deeper = [epoch("deeper", right(range(36))), epoch("deeper", right(range(39)), 2)]
    for history, expected in ((head, (1, 1)), (head + top, (1, 3)), (head + top + deeper, (6, 6))):
        for rule, index in zip((STANDARD_ERROR, ANY_GAIN), expected, strict=True):
            assert kept_index(history, phase_gains(history, rule), "accuracy") == index


def test_a_phase_without_a_usable_epoch_is_no_phase() -> None:
    broken = EpochRecord("broken", 1, "head", 0.1, math.nan, MetricValues.undefined(), 1.0)
    assert phase_gain([broken], "broken", (), ANY_GAIN) is None
    assert kept_record([broken], (), "accuracy") is None
    top = epoch("top", right(range(3)))
    gains = phase_gains([broken, top, broken], ANY_GAIN)
    assert [gain.before for gain in gains] == [None]
    assert kept_record([broken, top], gains, "accuracy") == top


def test_a_loss_is_compared_in_its_own_unit() -> None:
    def losses(phase: str, values: np.ndarray) -> EpochRecord:
        without = tuple(((values.sum() - values) / (len(values) - 1)).tolist())
        (record,) = records([0.5], phase=phase)
        return replace(record, val=MetricValues({"loss": float(values.mean())}), without=without)

    draws = np.random.default_rng(0).normal(0.5, 0.1, size=100)
    head, top = losses("head", draws), losses("top", draws - 0.01)
    even = losses("even", np.full(100, draws.mean() - 0.005))
    rule = KeepRule("loss", 100, "standard_error")
    gain = phase_gains([head, top], rule)[1]
    assert gain.is_kept and gain.gain == pytest.approx(0.01) and gain.standard_error == pytest.approx(0, abs=1e-9)
    assert gain_text(gain, "loss") == "lowered validation loss by 0.0100, standard error 0.0000"
    gain = phase_gains([head, even], rule)[1]
    assert not gain.is_kept and "within one standard error (0.0" in gain_text(gain, "loss")
    gain = phase_gains([head, even], replace(rule, keep="any_gain"))[1]
    assert gain.is_kept and gain_text(gain, "loss").startswith("lowered validation loss by 0.0050, standard error 0.0")


def test_a_gain_is_said_with_its_standard_error() -> None:
    def said(gain: float, error: float | None, is_kept: bool) -> str:
        return gain_text(PhaseGain("top", 3, 1.0, 0.8 + gain, 0.8, gain, error, is_kept), "accuracy")

    assert said(0.031, 0.012, True) == "gained 3.1 points of validation accuracy, standard error 1.2"
    assert said(0.004, 0.0043, False) == "gained 0.4 points of validation accuracy, within one standard error (0.4)"
    assert said(0.004, 0.0043, True) == "gained 0.4 points of validation accuracy, standard error 0.4"
    assert said(0, 0, False) == said(0, 0.02, False) == "gained 0.0 points of validation accuracy"
    assert said(-0.1, 0.02, False) == "lost 10.0 points of validation accuracy"
    assert said(0.1, None, True) == "gained 10.0 points of validation accuracy"


def test_gains_are_read_back_also_with_the_number_of_splits_that_runs_had() -> None:
    for gain in phase_gains([epoch("head", right(range(20))), epoch("top", right(range(30)))], ANY_GAIN):
        assert PhaseGain.from_json(asdict(gain)) == PhaseGain.from_json({**asdict(gain), "splits": 2}) == gain


def test_records_of_release_0_1_keep_the_best_epoch_of_all_as_it_did() -> None:
    rule = KeepRule("accuracy", 100)
    head, top = phase_gains(records([0.7, 0.8], phase="head") + records([0.805, 0.81], phase="top"), rule)
    assert (head.before, head.epochs, head.best) == (None, 2, 0.8)
    assert (top.before, top.epochs, top.best, top.seconds) == (0.8, 2, 0.81, 2.0)
    assert top.is_kept and top.standard_error == standard_error_of_difference(0.8, 0.81, 100) > top.gain
    (mixed,) = records([0.82], phase="deeper")
    assert phase_gains([*records([0.8], phase="head"), replace(mixed, without=(0.8,))], rule)[1].is_kept
    losses = phase_gains(records([0.8], phase="head") + records([0.8], phase="top"), KeepRule("loss", 9))
    assert losses[1].standard_error is None


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10_000))
def test_the_standard_error_decreases_with_the_number_of_images(first: float, second: float, images: int) -> None:
    standard_error = standard_error_of_difference(first, second, images)
    assert 0 <= standard_error <= 1
    assert standard_error_of_difference(first, second, 4 * images) == pytest.approx(standard_error / 2)
    assert standard_error == pytest.approx(standard_error_of_difference(second, first, images))


def test_a_target_is_reached_once_the_lower_bound_reaches_it() -> None:
    (reached,) = records([0.99])
    accuracy = {"accuracy": 10_000}
    assert target_reached(reached, None, 10_000, {}) is None
    assert target_reached(None, {"accuracy": 0.5}, 100, accuracy) is None
    assert target_reached(reached, {"accuracy": 0.97}, 100, {"accuracy": 100}) is None
    assert target_reached(reached, {"accuracy": 0.97}, 10_000, accuracy) == (
        "target reached on 10,000 validation images: accuracy 99.0% (98.8% to 99.2%)"
    )


def test_a_target_rests_on_independent_images_of_the_rarest_class() -> None:
    (reached,) = records([0.99])
    assert target_reached(reached, {"accuracy": 0.97}, 10_000, {"accuracy": 40}) is None
