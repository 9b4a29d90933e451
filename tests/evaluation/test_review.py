from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.exports.classifiers import random_classifier
from thaw.classifier.decision import Decision
from thaw.classifier.outputs import LabelledOutputs, ModelOutputs
from thaw.classifier.review import MAX_TRAIN_FEATURES
from thaw.evaluation.review import (
    LIMITS,
    conformal_quantile,
    fit_review_policy,
    refit_review_policy,
    review_rates,
    unmet_limits,
)
from thaw.metrics import Scored
from thaw.prediction.predict import to_predictions
from thaw.recipe import DecisionSettings, Task


def clouds(count: int, seed: int, centres: tuple[int, ...] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Features around one axis per class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.array(centres)[rng.integers(len(centres), size=count)]
    return 4 * np.eye(16)[labels] + rng.normal(0, 1, (count, 16)), labels


def outputs(clouds: tuple[np.ndarray, np.ndarray]) -> LabelledOutputs:
    features, labels = clouds
    return LabelledOutputs(features, np.zeros((len(labels), 3)), labels)


def scored(labels: np.ndarray, seed: int) -> Scored:
    rng = np.random.default_rng(seed)
    truth = labels[:, None] == np.arange(3)
    logits = 2.0 * truth + rng.normal(size=truth.shape)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scored("multiclass", probabilities, truth, Decision().labels(probabilities, "multiclass"))


def with_scores(count: int, seed: int) -> tuple[np.ndarray, Scored]:
    val, labels = clouds(count, seed)
    return val, scored(labels, seed)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_conformal_quantile_covers_at_least_the_requested_fraction(values: list[float], coverage: float) -> None:
    quantile = conformal_quantile(np.array(values), coverage, 1.0)
    assert (np.array(values) <= quantile).mean() >= coverage - 1e-9


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_image_that_sets_the_limit_is_covered(kind: type) -> None:
    for seed in range(50):
        val, labels = clouds(59, seed)
        found = scored(labels, seed)
        found = replace(found, probabilities=found.probabilities.astype(kind))
        policy = fit_review_policy(outputs(clouds(60, seed)), val, found, DecisionSettings(coverage=0.95), seed)
        assert (policy.candidates(found.probabilities) & found.truth).any(axis=1).sum() == 57


def test_an_image_with_another_label_than_its_only_candidate_is_ambiguous() -> None:
    policy = replace(
        fit_review_policy(outputs(clouds(60, 0)), *with_scores(59, 0), DecisionSettings(), 0), min_probability=0.3
    )
    probabilities = np.array([[0.8, 0.2, 0.0], [0.8, 0.1, 0.1], [0.4, 0.4, 0.2], [0.3, 0.25, 0.45]])
    predicted = Decision(thresholds=((1, 0.15),)).labels(probabilities, "multiclass")
    assert policy.is_ambiguous(probabilities, predicted).tolist() == [True, False, True, True]


def test_too_few_images_give_the_maximum() -> None:
    assert conformal_quantile(np.array([0.1, 0.2]), 0.99, 2.0) == 2.0


def test_a_limit_that_takes_more_images_says_how_many() -> None:
    settings = DecisionSettings(coverage=0.99, in_distribution=0.9)
    assert unmet_limits(settings, "multiclass", 99, LIMITS) == ()
    (sentence,) = unmet_limits(settings, "multiclass", 98, LIMITS)
    assert sentence.startswith("decision.coverage: 0.99 takes at least 99 validation images, and there are 98")
    assert len(unmet_limits(settings, "multiclass", 8, LIMITS)) == 2
    (multilabel,) = unmet_limits(settings, "multilabel", 99, LIMITS)
    assert "multilabel" in multilabel


def test_new_images_are_flagged_as_rarely_as_requested() -> None:
    covered, out_of_distribution = [], []
    for seed in range(20):
        val, val_labels = clouds(300, seed + 100)
        test, test_labels = clouds(300, seed + 200)
        requested = DecisionSettings(coverage=0.9, in_distribution=0.95)
        review_policy = fit_review_policy(
            outputs(clouds(300, seed)), val, scored(val_labels, seed + 300), requested, seed
        )
        new = scored(test_labels, seed + 400)
        rates = review_rates(review_policy, review_policy.is_out_of_distribution(test), new)
        assert rates.covered and rates.out_of_distribution
        covered.append(rates.covered.value)
        out_of_distribution.append(rates.out_of_distribution.value)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)
    assert np.mean(out_of_distribution) == pytest.approx(0.05, abs=0.02)


def test_an_unknown_class_is_out_of_distribution() -> None:
    val, val_labels = clouds(200, 1)
    review_policy = fit_review_policy(outputs(clouds(600, 0)), val, scored(val_labels, 2), DecisionSettings(), 0)
    unknown, _ = clouds(200, 3, centres=(9,))
    assert review_policy.is_out_of_distribution(unknown).mean() > 0.9


def test_the_remembered_training_images_are_few_and_of_every_class() -> None:
    train, labels = clouds(5000, 0)
    labels[:4900] = 0
    labels[4900:4950], labels[4950:] = 1, 2
    review_policy = fit_review_policy(
        outputs((train, labels)), train[:50], scored(labels[:50], 0), DecisionSettings(), 0
    )
    assert len(review_policy.train_features) <= MAX_TRAIN_FEATURES
    rare = train[4900:] / np.linalg.norm(train[4900:], axis=1, keepdims=True)
    assert (review_policy.distances(rare) < 0.5).all()


def test_a_limit_that_validation_is_too_small_for_has_no_rate() -> None:
    (val, val_labels), (test, test_labels) = clouds(30, 1), clouds(50, 2)
    found = scored(test_labels, 4)

    def rates(requested: DecisionSettings) -> tuple[bool, bool]:
        policy = fit_review_policy(outputs(clouds(60, 0)), val, scored(val_labels, 3), requested, seed=0)
        result = review_rates(policy, policy.is_out_of_distribution(test), found)
        return result.ambiguous is not None, result.out_of_distribution is not None

    assert rates(DecisionSettings(coverage=0.9, in_distribution=0.9)) == (True, True)
    assert rates(DecisionSettings(coverage=0.9, in_distribution=0.99)) == (True, False)
    assert rates(DecisionSettings(coverage=0.99, in_distribution=0.9)) == (False, True)


@pytest.mark.parametrize("task", get_args(Task))
def test_the_confidence_that_drift_is_measured_against_is_that_of_predictions(task: Task) -> None:
    classifier = random_classifier(task=task)
    classifier.decision = Decision(((1, 0.3),))
    rng, classes = np.random.default_rng(0), len(classifier.classes)
    probabilities = rng.random((50, classes)) if task == "multilabel" else rng.dirichlet(np.ones(classes), 50)
    truth = np.eye(classes, dtype=bool)[rng.integers(0, classes, 50)]
    validation = Scored(task, probabilities, truth, classifier.decision.labels(probabilities, task))
    features = np.ones((50, 16))
    policy = fit_review_policy(outputs(clouds(60, 0)), features, validation, DecisionSettings(), 0)
    predicted = to_predictions(classifier, [Path()] * 50, ModelOutputs(features, probabilities))
    expected = np.mean([prediction.confidence for prediction in predicted])
    assert policy.confidence == pytest.approx(expected)
    stale = replace(policy, confidence=0.0)
    again = refit_review_policy(stale, validation, np.zeros(50), DecisionSettings())
    assert again.confidence == pytest.approx(expected)
