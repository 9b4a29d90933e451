import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.decision import Decision
from thaw.classifier.review import MAX_TRAIN_FEATURES
from thaw.evaluation.metrics import Scored
from thaw.evaluation.review import conformal, fit_review_policy, review_rates
from thaw.recipe import DecisionSettings


def clouds(count: int, seed: int, centres: tuple[int, ...] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Features around one axis a class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.array(centres)[rng.integers(len(centres), size=count)]
    return 4 * np.eye(16)[labels] + rng.normal(0, 1, (count, 16)), labels


def scored(labels: np.ndarray, seed: int) -> Scored:
    rng = np.random.default_rng(seed)
    truth = labels[:, None] == np.arange(3)
    logits = 2.0 * truth + rng.normal(size=truth.shape)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scored("multiclass", probabilities, truth, Decision().labels(probabilities, "multiclass"))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_conformal_border_leaves_at_most_the_wanted_share_beyond_it(values: list[float], wanted: float) -> None:
    border = conformal(np.array(values), wanted, 1.0)
    assert (np.array(values) <= border).mean() >= min(wanted, 1.0) - 1e-9


def test_few_validation_images_give_no_border() -> None:
    assert conformal(np.array([0.1, 0.2]), 0.99, 2.0) == 2.0


def test_new_images_are_covered_and_called_familiar_as_often_as_was_asked() -> None:
    covered, out_of_distribution = [], []
    for seed in range(20):
        train, labels = clouds(300, seed)
        val, val_labels = clouds(300, seed + 100)
        test, test_labels = clouds(300, seed + 200)
        asked = DecisionSettings(coverage=0.9, in_distribution=0.95)
        review_policy = fit_review_policy(train, labels, val, scored(val_labels, seed + 300), asked, seed)
        new = scored(test_labels, seed + 400)
        person = review_rates(review_policy, review_policy.is_out_of_distribution(test), new)
        assert person.covered and person.out_of_distribution
        covered.append(person.covered.value)
        out_of_distribution.append(person.out_of_distribution.value)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)
    assert np.mean(out_of_distribution) == pytest.approx(0.05, abs=0.02)


def test_a_class_that_was_never_seen_is_unlike() -> None:
    train, labels = clouds(600, 0)
    val, val_labels = clouds(200, 1)
    review_policy = fit_review_policy(train, labels, val, scored(val_labels, 2), DecisionSettings(), 0)
    strange, _ = clouds(200, 3, centres=(9,))
    assert review_policy.is_out_of_distribution(strange).mean() > 0.9


def test_a_bundle_remembers_no_more_than_it_should_and_every_class() -> None:
    train, labels = clouds(5000, 0)
    labels[:4900] = 0
    labels[4900:4950], labels[4950:] = 1, 2
    review_policy = fit_review_policy(train, labels, train[:50], scored(labels[:50], 0), DecisionSettings(), 0)
    assert len(review_policy.train_features) <= MAX_TRAIN_FEATURES
    rare = train[4900:] / np.linalg.norm(train[4900:], axis=1, keepdims=True)
    assert (review_policy.distances(rare) < 0.5).all()
