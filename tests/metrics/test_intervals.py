import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.metrics import fraction, intervals, paired_difference, paired_differences, wilson
from thaw.metrics.intervals import MANY_IMAGES, bootstrap_weights, fractions, widening


def test_wilson_interval_of_90_of_100() -> None:
    low, high = wilson(0.9, 100)
    assert (low, high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_interval_contains_the_fraction_and_stays_within_0_and_1(trials: int, value: float) -> None:
    low, high = wilson(value, trials)
    assert 0 <= low <= value + 1e-9 and value - 1e-9 <= high <= 1


def test_the_fraction_of_no_images_is_undefined() -> None:
    assert fraction(np.zeros(0, bool)) is None
    half = fraction(np.array([True, False]))
    assert half and half.value == 0.5 and half.low < 0.2


def test_bootstrap_draws_whole_groups() -> None:
    groups = np.array([4, 4, 7, 7, 7, 9])
    weights = np.concatenate(list(bootstrap_weights(groups, len(groups), 50, seed=0)))
    assert weights.shape == (50, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 5]].sum(axis=1) == 3).all()


@pytest.mark.parametrize(("groups", "chance_of_group"), [(2, 0.05), (4, 0.05), (8, 0.0), (30, 0.1)])
def test_intervals_of_few_groups_cover_the_truth(groups: int, chance_of_group: float) -> None:
    """Percentiles of the cluster bootstrap alone cover 54% of the cases with 2 groups and 80% with 4."""
    random, covered = np.random.default_rng(0), 0
    for repeat in range(200):
        success = random.beta(0.8 / (chance_of_group + 1e-3), 0.2 / (chance_of_group + 1e-3), groups)
        numbers = np.repeat(np.arange(groups), 20)
        estimate = fraction(random.random(len(numbers)) < success[numbers], numbers, seed=repeat)
        assert estimate and 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        covered += estimate.low <= 0.8 <= estimate.high
    assert covered >= 180


def test_intervals_of_many_groups_are_hardly_widened() -> None:
    assert widening(0) == widening(1) == 1.0
    assert 1.0 < widening(100) < 1.02 < widening(10) < 1.3 < widening(4)


@pytest.mark.parametrize("are_grouped", [False, True])
def test_several_fractions_and_differences_are_those_of_each_from_one_set_of_draws(
    are_grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, draw, drawn = np.random.default_rng(0), intervals._drawn, []
    groups = rng.integers(30, size=80) if are_grouped else None
    flags = rng.random((80, 4)) < (0.0, 0.1, 0.5, 1.0)
    later = flags ^ (rng.random((80, 4)) < 0.2)
    each = [fraction(column, groups) for column in flags.T]
    changes = [paired_difference(before, after, groups) for before, after in zip(flags.T, later.T, strict=True)]
    monkeypatch.setattr(intervals, "_drawn", lambda *args: drawn.append(1) or draw(*args))
    assert fractions(flags, groups) == each and paired_differences(flags, later, groups) == changes
    assert len(drawn) == are_grouped + 1


def test_nothing_is_drawn_where_every_draw_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_drawn", lambda *_: pytest.fail("drawn"))
    flags, groups = np.ones(50, bool), np.arange(50) // 2
    assert fraction(flags, groups) == fraction(flags[:25])
    unchanged = paired_difference(flags, flags, groups)
    assert unchanged and unchanged.low == unchanged.value == unchanged.high == 0


def test_many_images_are_drawn_with_replacement_like_few() -> None:
    images = MANY_IMAGES + 1
    weights = np.concatenate(list(bootstrap_weights(None, images, 20, seed=0)))
    assert weights.shape == (20, images) and (weights.sum(axis=1) == images).all()
    assert weights.var() == pytest.approx(1, abs=0.02) and len(np.unique(weights, axis=0)) == 20
