"""How much of the best of several values is luck."""

from __future__ import annotations

import numpy as np

from thaw.run_folder.search_folder import TrialRecord
from thaw.tuning.verdict import optimism


def trials(scores: np.ndarray) -> list[TrialRecord]:
    return [
        TrialRecord("full", number, "sampled", {}, "complete", value=float(each.mean()), scores=tuple(map(float, each)))
        for number, each in enumerate(scores)
    ]


def test_the_optimism_is_that_of_the_best_of_equally_good_trials() -> None:
    draws, shown, real = np.random.default_rng(0), [], []
    for seed in range(60):
        scores = (draws.random((4, 150)) < 0.8).astype(float)
        shown.append(optimism(trials(scores), np.arange(150), seed))
        real.append(scores.mean(axis=1).max() - 0.8)
    assert abs(np.mean(shown) - np.mean(real)) < 0.25 * np.mean(real)


def test_copies_of_an_image_are_drawn_together() -> None:
    scores = (np.random.default_rng(1).random((4, 50)) < 0.8).astype(float)
    once = optimism(trials(scores), np.arange(50), 0)
    copied = optimism(trials(np.repeat(scores, 4, axis=1)), np.repeat(np.arange(50), 4), 0)
    assert abs(once - copied) < 0.2 * once
    assert optimism(trials(np.repeat(scores, 4, axis=1)), np.arange(200), 0) < copied


def test_one_trial_was_not_chosen() -> None:
    assert optimism(trials(np.ones((1, 10))), np.arange(10), 0) == 0
