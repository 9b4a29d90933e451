from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from thaw.metrics import paired_standard_error
from thaw.run_folder.trial_record import LevelName, State, TrialName, TrialRecord
from thaw.tuning.levels import FULL, HEAD, LEVELS, PROBE, SHORT
from thaw.tuning.schedule import (
    Tried,
    best,
    expected_gain,
    is_exhausted,
    next_level,
    outlook,
    parent_of,
    ranked,
    survivors,
    winner,
)

UNITS = np.arange(40)
SIZES: dict[LevelName, float] = {"probe": 100, "head": 100, "short": float("inf"), "full": 1}


def record(level: LevelName, number: int, correct: int, images: int = 40, **changes: object) -> TrialRecord:
    """A trial that is right about the first `correct` images."""
    scores = tuple((np.arange(images) < correct).astype(float))
    return TrialRecord(
        level, number, "sampled", {}, "complete", value=correct / images, standard_error=0.05, scores=scores, **changes
    )


def test_levels_get_their_share() -> None:
    counts = dict.fromkeys((level.name for level in LEVELS), 1)
    records = [record("short", number, 20) for number in range(30)]
    for _ in range(64):
        level = next_level(Tried(records, counts, SIZES), list(counts))
        assert level is not None
        counts[level.name] += 1
    shares = {level.name: counts[level.name] / level.per_round for level in LEVELS}
    assert max(shares.values()) - min(shares.values()) <= 1


def test_a_settled_level_gets_no_more() -> None:
    counts: dict[LevelName, int] = {"probe": 1, "head": 9, "short": 9, "full": 9}
    assert next_level(Tried([], counts, SIZES), ["head", "short"]) in (HEAD, SHORT)
    assert next_level(Tried([], counts, SIZES), []) is None


@pytest.mark.parametrize("state", ["repeated", "skipped", "failed"])
def test_a_level_whose_trials_are_in_vain_is_exhausted(state: State) -> None:
    repeated = [TrialRecord("probe", number, "sampled", {}, state, value=0.5, predicted=60) for number in range(4)]
    counts: dict[LevelName, int] = {"probe": 9, "head": 1, "short": 1, "full": 1}
    assert is_exhausted(PROBE, Tried(repeated, counts, SIZES))
    assert not is_exhausted(PROBE, Tried([*repeated[:3], record("probe", 3, 20)], counts, SIZES))


def test_a_level_whose_trials_were_skipped_goes_on_once_there_is_more_time() -> None:
    skipped = [TrialRecord("short", number, "sampled", {}, "skipped", predicted=60) for number in range(4)]
    counts: dict[LevelName, int] = {"probe": 9, "head": 1, "short": 4, "full": 1}
    assert is_exhausted(SHORT, Tried(skipped, counts, SIZES, longest={"short": 50}))
    assert not is_exhausted(SHORT, Tried(skipped, counts, SIZES, longest={"short": 70}))


def test_the_best_is_the_earliest_of_equal_ones() -> None:
    records = [record("head", 2, 30), record("head", 1, 30), record("head", 0, 20)]
    found = best(records, "head")
    assert found is not None and found.number == 1


def on_heads(correct: dict[int, int], heads: dict[int, int]) -> list[TrialRecord]:
    """A short and a full trial on each head, right about so many images; heads about so many in cross-validation."""
    return [
        *(record("head", number, of_head) for number, of_head in heads.items()),
        *(record("short", number, right, parent=TrialName("head", number)) for number, right in correct.items()),
        *(record("full", number, right, parent=TrialName("short", number)) for number, right in correct.items()),
    ]


@pytest.mark.parametrize("level", ["short", "full"])
def test_of_trials_that_are_equal_on_validation_the_one_with_the_better_head_is_first(level: LevelName) -> None:
    records = on_heads({0: 40, 1: 40, 2: 39}, {0: 30, 1: 35, 2: 39})
    assert [each.number for each in ranked(records, level)] == [1, 0, 2]


@pytest.mark.parametrize("level", ["probe", "head", "short", "full"])
def test_trials_are_ranked_without_going_through_all_of_them_for_each(level: LevelName) -> None:
    class Counted(list[TrialRecord]):
        passes = 0

        def __iter__(self) -> Iterator[TrialRecord]:
            Counted.passes += 1
            return super().__iter__()

    numbers = dict.fromkeys(range(30), 20)
    assert (
        len(ranked(Counted(on_heads(numbers, numbers) + [record("probe", each, 20) for each in numbers]), level)) == 30
    )
    assert Counted.passes <= 2


@pytest.mark.parametrize(("of_others", "expected"), [(40, 2), (39, 2), (30, 0)])
def test_the_winner_has_the_best_head_of_those_that_validation_cannot_tell_apart(of_others: int, expected: int) -> None:
    found = winner(on_heads({0: 40, 1: of_others, 2: of_others}, {0: 30, 1: 35, 2: 39}), UNITS, UNITS)
    assert found is not None and found.number == expected


@pytest.mark.parametrize(
    ("plan", "other", "head_of_plan", "head_of_other", "expected"),
    [
        (30, 34, 30, 30, 1),  # better on validation
        (30, 31, 30, 30, 0),  # one image is within noise
        (40, 40, 30, 34, 1),  # equal on validation, and a better head
        (40, 40, 30, 31, 0),
        (34, 30, 30, 39, 0),  # worse on validation, whatever its head
    ],
)
def test_the_plan_wins_unless_another_trial_is_told_from_it(
    plan: int, other: int, head_of_plan: int, head_of_other: int, expected: int
) -> None:
    records = on_heads({0: plan, 1: other}, {0: head_of_plan, 1: head_of_other})
    records = [replace(each, origin="plan") if each.number == 0 else each for each in records]
    found = winner(records, UNITS, UNITS)
    assert found is not None and found.number == expected


def test_a_head_that_was_stopped_early_beats_nothing() -> None:
    records = on_heads({0: 40, 1: 40}, {0: 30})
    stopped = record("head", 1, 20, images=20)
    records = [replace(each, origin="plan") if each.number == 0 else each for each in (*records, stopped)]
    found = winner(records, UNITS, UNITS)
    assert found is not None and found.origin == "plan"


def test_there_is_no_winner_before_a_trial_was_trained_to_its_end() -> None:
    assert winner([record("short", 0, 40)], UNITS, UNITS) is None


def test_what_is_clearly_worse_does_not_survive() -> None:
    records = [record("probe", 0, 36), record("probe", 1, 36), record("probe", 2, 10)]
    assert [each.number for each in survivors(records, "probe", UNITS)] == [0, 1]


def test_a_head_goes_on_from_good_probes_in_turn() -> None:
    records = [record("probe", 0, 36), record("probe", 1, 36), record("probe", 2, 10)]
    assert [parent_of(HEAD, Tried(records, {}, SIZES), number, UNITS) for number in range(3)] == [
        TrialName("probe", 0),
        TrialName("probe", 1),
        TrialName("probe", 0),
    ]


def test_only_a_short_trial_that_was_not_finished_is_trained_to_its_end() -> None:
    records, first, second = (
        [record("short", 0, 30), record("short", 1, 20)],
        TrialName("short", 0),
        TrialName("short", 1),
    )
    assert parent_of(FULL, Tried(records, {}, SIZES, {first}), 1, UNITS) == second
    assert parent_of(FULL, Tried(records, {}, SIZES, {first, second}), 2, UNITS) is None


@pytest.mark.parametrize("top", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("draws", [1, 10])
@pytest.mark.parametrize("deviation", [0.01, 0.1])
def test_the_expected_gain_agrees_with_draws(top: float, draws: int, deviation: float) -> None:
    drawn = np.maximum(np.random.default_rng(0).normal(0.8, deviation, (20_000, draws)).max(axis=1) - top, 0)
    error = drawn.std() / np.sqrt(len(drawn))
    assert expected_gain(0.8, deviation, top, draws) == pytest.approx(drawn.mean(), abs=4 * error + 1e-4)


def test_equal_values_promise_nothing() -> None:
    records = [record("head", number, 30) for number in range(HEAD.enough)]
    found = outlook(HEAD, records, UNITS, 1.0)
    assert found is not None and found.gain == 0.0


def test_few_trials_say_nothing_about_the_next_ones() -> None:
    assert outlook(HEAD, [record("head", 0, 30)], UNITS, 1.0) is None


def test_widely_different_values_promise_more_than_noise() -> None:
    records = [record("head", number, 40 * (number + 1), images=400) for number in range(HEAD.enough)]
    found = outlook(HEAD, records, np.arange(400), 1.0)
    assert found is not None and not found.is_settled


def short_of(number: int, correct: np.ndarray) -> TrialRecord:
    """A short trial that is right about these of some images, each of which is a block of its own."""
    without = (correct.sum() - correct) / (len(correct) - 1)
    error = paired_standard_error(without.tolist(), [0.0] * len(correct))
    record = TrialRecord("short", number, "sampled", {}, "complete", value=float(correct.mean()), standard_error=error)
    return replace(record, without=tuple(without.tolist()))


def test_short_trials_that_differ_in_few_images_are_told_apart_better_than_each_is_known() -> None:
    """As the levels below do, which have a score of each image."""
    images = np.arange(200)
    records = [short_of(number, (images < 150 + number).astype(float)) for number in range(SHORT.enough)]
    found = outlook(SHORT, records, UNITS, 1.0)
    differ = np.isin(images, range(150, 150 + SHORT.enough - 1)).astype(float)
    assert found is not None
    assert found.standard_error == pytest.approx(differ.std(ddof=1) / np.sqrt(200))
    assert found.standard_error < (records[0].standard_error or 0.0) / 2
    before = [replace(record, without=()) for record in records]
    of_older = outlook(SHORT, before, UNITS, 1.0)
    assert of_older is not None and of_older.standard_error == records[-1].standard_error


def test_what_is_right_about_every_image_cannot_be_improved() -> None:
    records = [record("head", number, 5 * number) for number in range(9)]
    found = outlook(HEAD, records, UNITS, 1.0)
    assert found is not None and found.gain == 0.0 and found.is_settled
