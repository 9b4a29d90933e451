"""Scores whose mean is the monitored metric, and the standard error of their differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.metrics import MONITORS, measure
from thaw.selection.scores import compare, image_scores, mean_of, standard_error_of


@given(st.integers(0, 10_000), st.sampled_from(MONITORS))
def test_the_mean_of_scores_is_the_metric(seed: int, monitor: str) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(4), rng.integers(4, size=30)])
    probabilities = rng.dirichlet(np.ones(4), size=34)
    scores = image_scores(probabilities, targets, "multiclass", monitor)
    expected = measure(probabilities, targets, "multiclass")[monitor]
    assert scores.mean() == pytest.approx(-expected if monitor == "loss" else expected, abs=1e-6)


@given(st.integers(0, 10_000), st.sampled_from(MONITORS))
def test_the_mean_of_scores_is_the_metric_for_several_labels(seed: int, monitor: str) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((40, 3)) < 0.4).astype(np.float32)
    truth[0], truth[1] = 0.0, 1.0
    probabilities = rng.random((40, 3))
    scores = image_scores(probabilities, truth, "multilabel", monitor)
    expected = measure(probabilities, truth, "multilabel")[monitor]
    assert scores.mean() == pytest.approx(-expected if monitor == "loss" else expected, abs=1e-6)


def test_the_standard_error_of_independent_images_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert mean_of(values, np.arange(50)).standard_error == pytest.approx(values.std(ddof=1) / 50**0.5)


def test_copies_of_an_image_are_no_evidence() -> None:
    values, groups = np.random.default_rng(0).normal(size=20), np.arange(20)
    once = mean_of(values, groups)
    tenfold = mean_of(np.repeat(values, 10), np.repeat(groups, 10))
    assert tenfold.standard_error == pytest.approx(once.standard_error)
    assert tenfold.value == pytest.approx(once.value)


def test_equal_scores_gain_nothing_for_certain() -> None:
    scores = np.random.default_rng(0).random(30)
    gain = compare(scores, scores, np.arange(30))
    assert (gain.value, gain.standard_error, gain.exceeds_noise) == (0.0, 0.0, False)


def test_that_rare_classes_have_larger_scores_is_no_noise() -> None:
    targets = np.repeat([0, 1], [90, 10])
    perfect = image_scores(np.eye(2)[targets], targets, "multiclass", "balanced_accuracy")
    assert standard_error_of(perfect, targets, np.arange(100)) == pytest.approx(0.0, abs=1e-12)


def test_the_standard_error_is_that_of_a_stratified_sample() -> None:
    """Of two classes of equal size the variance is the mean of their binomial ones."""
    correct, targets = np.repeat([1.0, 0.0, 1.0, 0.0], [90, 10, 60, 40]), np.repeat([0, 1], 100)
    expected = np.sqrt((0.9 * 0.1 + 0.6 * 0.4) / 2 / 200)
    assert standard_error_of(correct, targets, np.arange(200)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("monitor", ["macro_f1", "mean_average_precision"])
def test_the_standard_error_of_scores_is_that_of_the_metric(monitor: str) -> None:
    """By the spread of the metric over samples that are drawn anew."""
    values, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        targets = rng.integers(3, size=150)
        powers = np.exp(1.2 * np.eye(3)[targets] + rng.normal(size=(150, 3)))
        scores = image_scores(powers / powers.sum(axis=1, keepdims=True), targets, "multiclass", monitor)
        found = mean_of(scores, np.arange(150))
        values.append(found.value)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_what_only_moves_the_threshold_gains_no_average_precision() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 4)) < 0.1).astype(np.float32)
    logits = 2.0 * truth - 3.0 + rng.normal(size=(200, 4))
    one, other = (
        image_scores(1 / (1 + np.exp(-(logits + shift))), truth, "multilabel", "mean_average_precision")
        for shift in (0.0, 2.0)
    )
    assert one == pytest.approx(other)
