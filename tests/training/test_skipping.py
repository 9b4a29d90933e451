from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.training.test_gain import epoch, right
from tests.training.test_history import phase, records
from thaw.training.context import FitSettings
from thaw.training.gain import PhaseGain, phase_gains
from thaw.training.history import EpochRecord
from thaw.training.skipping import SkippedPhase, reason_to_skip, skipped_phases

PHASES = [phase(name="head"), phase(name="top", optional=True), phase(name="deeper", optional=True)]
IMAGES = 300


def settings(monitor: str = "accuracy", target: Mapping[str, float] | None = None) -> FitSettings:
    return FitSettings(0, "fp32", monitor, None, Path(), IMAGES, target, phase_seconds=(5.0, 60.0, 80.0))


def history(*correct: range) -> list[EpochRecord]:
    """The head, the top and the stages below it, which predict these of the validation images correctly."""
    return [epoch(each.name, right(images, IMAGES)) for each, images in zip(PHASES, correct, strict=False)]


def gains_of(found: list[EpochRecord], monitor: str = "accuracy") -> tuple[PhaseGain, ...]:
    return phase_gains(found, monitor, IMAGES)


def reason(*correct: range) -> str | None:
    found = history(*correct)
    return reason_to_skip(found, gains_of(found), PHASES, len(correct), settings())


def test_a_phase_that_is_not_optional_is_skipped_only_once_the_target_is_reached() -> None:
    phases = [phase(name="head"), phase(name="top")]
    found = history(range(IMAGES))
    assert reason_to_skip(found, gains_of(found), phases, 1, settings()) is None
    reached = reason_to_skip(found, gains_of(found), phases, 1, settings(target={"accuracy": 0.9}))
    assert reached == "the target is reached"


def test_an_optional_phase_is_skipped_if_validation_is_perfect_or_one_error_away_from_it() -> None:
    assert reason(range(IMAGES)) == "validation accuracy is perfect"
    assert reason(range(IMAGES - 1)) == (
        "the 0.3 points of validation accuracy that are left to gain are within one standard error (0.3)"
    )
    assert reason(range(IMAGES - 2)) is None
    of_0_1 = records([0.9967], phase="head")
    assert reason_to_skip(of_0_1, gains_of(of_0_1), PHASES, 1, settings()) is None


def test_thawing_deeper_needs_a_phase_that_was_kept() -> None:
    assert reason(range(220), range(260)) is None
    # 3 more images right: 77 lost and 80 won.
    assert reason(range(220), range(77, 300)) == (
        "phase top gained 1.0 points of validation accuracy, within one standard error (4.2)"
    )
    assert reason(range(220), range(190)) == "phase top lost 10.0 points of validation accuracy"


def test_thawing_deeper_needs_a_fifth_of_the_last_gain_to_exceed_one_standard_error() -> None:
    assert reason(range(220), range(235)) == (
        "phase top gained 5.0 points of validation accuracy, standard error 1.3, and the fifth of that to expect from "
        "thawing deeper is within it"
    )


def test_any_decrease_of_a_loss_in_records_of_release_0_1_is_a_gain() -> None:
    of_0_1 = records([0.8], phase="head") + records([0.8], phase="top")
    found = reason_to_skip(of_0_1, gains_of(of_0_1, "loss"), PHASES, 2, settings("loss"))
    assert found == "phase top lowered validation loss by 0.0000"


@pytest.mark.parametrize(
    ("correct", "skipped"), [((220, 260, 280), []), ((220, 220), ["deeper"]), ((300,), ["top", "deeper"])]
)
def test_a_finished_run_says_which_phases_it_skipped_and_the_time_that_this_saved(
    correct: tuple[int, ...], skipped: list[str]
) -> None:
    records = history(*map(range, correct))
    found = skipped_phases(records, gains_of(records), PHASES, settings())
    assert [item.phase for item in found] == skipped
    seconds = {each.name: each_seconds for each, each_seconds in zip(PHASES, (5.0, 60.0, 80.0), strict=True)}
    assert all(isinstance(item, SkippedPhase) and item.reason and item.seconds == seconds[item.phase] for item in found)
