"""Two estimates: of images like those of training, and of groups that training did not see."""

from __future__ import annotations

import numpy as np
import pytest

from thaw.metrics import wilson
from thaw.selection.estimates import Estimates, Expected, Folding, deciding


def folding(groups: int, grouping: str = "", is_guess: bool = False) -> Folding:
    """400 images in two folds and some groups."""
    return Folding(np.arange(400) % 2, np.arange(400) % groups, grouping, is_guess)


def correct(fraction: float) -> np.ndarray:
    return (np.random.default_rng(1).permutation(400) < 400 * fraction).astype(float)


def test_estimates_that_agree_within_noise_do_not_differ() -> None:
    foldings = folding(400), folding(20, "scenes")
    found = Estimates.of(foldings, [correct(0.95), correct(0.94)])
    assert not found.differ
    assert found.across is not None and found.across.groups == 20


def test_a_fall_across_groups_that_exceeds_noise_is_said() -> None:
    foldings = folding(400), folding(20, "scenes")
    found = Estimates.of(foldings, [correct(0.99), correct(0.80)])
    assert found.differ
    assert found.sentence().startswith("99.0% on images like these; ")
    assert found.sentence().endswith("expected on unseen scenes (20 groups)")


def test_a_rise_across_groups_changes_nothing() -> None:
    foldings = folding(400), folding(20, "scenes")
    assert not Estimates.of(foldings, [correct(0.80), correct(0.99)]).differ


def test_without_groups_that_is_said() -> None:
    found = Estimates.of([folding(400)], [correct(0.9)])
    assert found.across is None and "nothing tells which images belong together" in found.sentence()


def test_estimates_survive_the_plan_file() -> None:
    foldings = folding(400), folding(20, "scenes")
    for found in (Estimates.of(foldings, [correct(0.9), correct(0.8)]), Estimates.of(foldings[:1], [correct(0.9)])):
        assert Estimates.from_json(found.to_json()) == found
    assert Estimates.from_json(None) is None


def test_groups_that_are_known_decide_alone_and_guessed_ones_together_with_random_folds() -> None:
    random, known, guessed = folding(400), folding(20, "groups"), folding(20, "scenes", is_guess=True)
    assert deciding((random, known), differ=False) == (random,)
    assert deciding((random, known), differ=True) == (known,)
    assert deciding((random, guessed), differ=True) == (random, guessed)


def test_what_few_groups_tell_has_the_interval_of_student() -> None:
    """Simulated, 1.96 standard errors of three groups cover 81% of the true values instead of 95%."""
    groups, covered = np.repeat(np.arange(3), 40), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = (rng.random(120) < np.repeat(rng.uniform(0.6, 1.0, 3), 40)).astype(float)
        expected = Expected.of(values, groups)
        covered += expected.low <= 0.8 <= expected.high
    assert covered >= 184


def test_three_groups_that_are_all_correct_promise_little() -> None:
    expected = Expected.of(np.ones(120), np.repeat(np.arange(3), 40))
    assert (expected.low, expected.high) == pytest.approx(wilson(1.0, 3))
    assert Expected.of(np.ones(4), np.zeros(4)).low == pytest.approx(wilson(1.0, 1)[0])
