import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_gain import epoch, right
from tests.training.test_history import metrics, phase, records
from thaw.recipe import KeepPhase, Phase
from thaw.training.context import FitSettings
from thaw.training.gain import phase_gains
from thaw.training.history import EpochRecord
from thaw.training.skipping import SkippedPhase, falls_short, reason_to_skip, skipped_phases

PHASES = [phase(name="head"), phase(name="top", optional=True), phase(name="deeper", optional=True)]
IMAGES = 300
RULES: tuple[KeepPhase, ...] = get_args(KeepPhase)


def settings(
    keep: KeepPhase = "standard_error", monitor: str = "accuracy", target: Mapping[str, float] | None = None
) -> FitSettings:
    return FitSettings(
        seed=0,
        precision="fp32",
        monitor=monitor,
        class_weights=None,
        checkpoints=Path(),
        val_images=IMAGES,
        target=target,
        target_trials={"accuracy": IMAGES},
        phase_seconds=(5.0, 60.0, 80.0),
        keep_phase=keep,
    )


def history(*correct: range) -> list[EpochRecord]:
    """The head, the top and the stages below it, which predict these of the validation images correctly."""
    return [epoch(each.name, right(images, IMAGES)) for each, images in zip(PHASES, correct, strict=False)]


def reason_after(found: list[EpochRecord], settings: FitSettings, phases: Sequence[Phase] = PHASES) -> str | None:
    """Why the phase after those that were trained is skipped."""
    done = len({record.phase for record in found})
    return reason_to_skip(found, phase_gains(found, settings.keep_rule), phases, done, settings)


def reason(keep: KeepPhase, *correct: range) -> str | None:
    return reason_after(history(*correct), settings(keep))


@pytest.mark.parametrize("keep", RULES)
def test_a_phase_that_is_not_optional_is_skipped_only_once_the_target_is_reached(keep: KeepPhase) -> None:
    phases = [phase(name="head"), phase(name="top")]
    found = history(range(IMAGES))
    assert reason_after(found, settings(keep), phases) is None
    assert reason_after(found, settings(keep, target={"accuracy": 0.9}), phases) == "the target is reached"


@pytest.mark.parametrize("keep", RULES)
def test_an_optional_phase_is_skipped_if_validation_is_perfect(keep: KeepPhase) -> None:
    assert reason(keep, range(IMAGES)) == "validation accuracy is perfect"


def test_an_optional_phase_is_skipped_one_error_away_from_that_if_it_would_need_a_standard_error() -> None:
    assert reason("standard_error", range(IMAGES - 1)) == (
        "the 0.3 points of validation accuracy that are left to gain are within one standard error (0.3)"
    )
    assert reason("any_gain", range(IMAGES - 1)) is None
    assert reason("standard_error", range(IMAGES - 2)) is None
    assert reason_after(records([0.9967], phase="head"), settings()) is None


def test_thawing_deeper_needs_a_phase_that_was_kept() -> None:
    for keep in RULES:
        assert reason(keep, range(220), range(260)) is None
        assert reason(keep, range(220), range(190)) == "phase top lost 10.0 points of validation accuracy"
        assert reason(keep, range(220), range(80, 300)) == "phase top gained 0.0 points of validation accuracy"
    # 3 more images right: 77 lost and 80 won.
    assert reason("standard_error", range(220), range(77, 300)) == (
        "phase top gained 1.0 points of validation accuracy, within one standard error (4.2)"
    )


@pytest.mark.parametrize("keep", RULES)
def test_no_phase_is_trained_after_one_that_was_not_kept_however_many_were_skipped_between(keep: KeepPhase) -> None:
    phases = [*PHASES, phase(name="deepest", optional=True)]
    of_keep = replace(settings(keep), phase_seconds=(5.0, 60.0, 80.0, 90.0))
    found = history(range(220), range(190))
    gains = phase_gains(found, of_keep.keep_rule)
    lost = "phase top lost 10.0 points of validation accuracy"
    assert [reason_to_skip(found, gains, phases, index, of_keep) for index in (2, 3)] == [lost, lost]
    skipped = skipped_phases(found, gains, phases, of_keep)
    assert [(item.phase, item.seconds) for item in skipped] == [("deeper", 80.0), ("deepest", 90.0)]


@pytest.mark.parametrize("keep", RULES)
def test_no_deeper_phase_is_trained_after_one_that_diverged(keep: KeepPhase) -> None:
    diverged = EpochRecord("top", 1, "top", 0.1, math.nan, metrics(0.8, math.nan), 1.0)
    found = [*history(range(220)), diverged]
    assert reason_after(found, settings(keep)) == "phase top diverged"
    skipped = skipped_phases(found, phase_gains(found, settings(keep).keep_rule), PHASES, settings(keep))
    assert [item.phase for item in skipped] == ["deeper"]


def test_thawing_deeper_needs_a_fifth_of_the_last_gain_to_exceed_one_standard_error_by_either_rule() -> None:
    beyond = "and the fifth of that to expect from thawing deeper is within it"
    for keep in RULES:
        assert reason(keep, range(220), range(235)) == (
            f"phase top gained 5.0 points of validation accuracy, standard error 1.3, {beyond}"
        )
    assert reason("any_gain", range(220), range(77, 300)) == (
        f"phase top gained 1.0 points of validation accuracy, standard error 4.2, {beyond}"
    )


@given(st.sampled_from(RULES), st.lists(st.integers(0, IMAGES), min_size=1, max_size=2), st.integers(0, IMAGES))
def test_a_phase_that_could_not_be_kept_is_not_trained_and_any_gain_trains_no_fewer(
    keep: KeepPhase, correct: list[int], next_correct: int
) -> None:
    found = history(*map(range, correct))
    skipped = reason(keep, *map(range, correct))
    if skipped and ("perfect" in skipped or "left to gain" in skipped):
        (record,) = [epoch("later", right(range(next_correct), IMAGES))]
        assert not phase_gains([*found, record], settings(keep).keep_rule)[-1].is_kept
    if reason("any_gain", *map(range, correct)):
        assert reason("standard_error", *map(range, correct))


def test_an_equal_loss_in_records_of_release_0_1_is_no_gain() -> None:
    of_0_1 = records([0.8], phase="head") + records([0.8], phase="top")
    assert reason_after(of_0_1, settings(monitor="loss")) == "phase top lowered validation loss by 0.0000"


@pytest.mark.parametrize(
    ("correct", "epochs", "ends_after"),
    [
        # The head predicts 200 correctly.
        ([199, 199, 199, 250], 10, 3),
        ([199, 200, 199, 199], 10, None),
        ([199, 199, 201, 199], 10, None),
        ([199, 199, 199, 199, 199, 199, 199], 20, 6),
        ([199, 199, 199, 199], 4, 3),
    ],
)
def test_an_optional_phase_ends_if_none_of_its_first_epochs_is_as_good_as_what_it_would_replace(
    correct: list[int], epochs: int, ends_after: int | None
) -> None:
    top = phase(name="top", optional=True, epochs=epochs, patience=5)
    head = [epoch("head", right(range(200), IMAGES))]
    found = [epoch("top", right(range(one), IMAGES), number) for number, one in enumerate(correct, start=1)]

    def ends(number: int, top: Phase) -> bool:
        gain = phase_gains([*head, *found[:number]], settings().keep_rule)[-1]
        return falls_short(gain, top)

    numbers = range(1, len(found) + 1)
    assert next((number for number in numbers if ends(number, top)), None) == ends_after
    for changes in ({"patience": None}, {"optional": False}):
        assert not any(ends(number, top.model_copy(update=changes)) for number in numbers)


@pytest.mark.parametrize("keep", RULES)
@pytest.mark.parametrize(
    ("correct", "skipped"), [((220, 260, 280), []), ((220, 220), ["deeper"]), ((300,), ["top", "deeper"])]
)
def test_a_finished_run_says_which_phases_it_skipped_and_the_time_that_this_saved(
    correct: tuple[int, ...], skipped: list[str], keep: KeepPhase
) -> None:
    records = history(*map(range, correct))
    found = skipped_phases(records, phase_gains(records, settings(keep).keep_rule), PHASES, settings(keep))
    assert [item.phase for item in found] == skipped
    seconds = {each.name: each_seconds for each, each_seconds in zip(PHASES, (5.0, 60.0, 80.0), strict=True)}
    assert all(isinstance(item, SkippedPhase) and item.reason and item.seconds == seconds[item.phase] for item in found)
