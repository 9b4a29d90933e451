"""Areas under curves are those of every threshold, for a fraction of the work."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.samples import scored
from thaw.metrics import overall, overall_and_per_class, per_class, weighted
from thaw.metrics.weighted import Weighted, ratio
from thaw.recipe import Task


def areas_at_every_threshold(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Average precision (R,) and area under the ROC curve (R,), by their definitions."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ordered = weights[:, order].astype(np.float64)
    true_positives = np.cumsum(ordered * truth[order], axis=1)[:, last_of_tie]
    false_positives = np.cumsum(ordered * ~truth[order], axis=1)[:, last_of_tie]
    positives, negatives = true_positives[:, -1], false_positives[:, -1]
    gained = np.diff(true_positives, axis=1, prepend=0.0)
    precision = ratio(true_positives, true_positives + false_positives, 0.0)
    average_precision = ratio((gained * precision).sum(axis=1), np.where(negatives > 0, positives, 0.0))
    area = (np.diff(false_positives, axis=1, prepend=0.0) * (true_positives - gained / 2)).sum(axis=1)
    return [average_precision, ratio(area, positives * negatives)]


def drawn(images: int, draws: int) -> np.ndarray:
    """Bootstrap weights (R, N)."""
    return np.random.default_rng(1).multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float32)


@settings(max_examples=60)
@given(
    st.integers(1, 120),
    st.integers(2, 5),
    st.integers(0, 1000),
    st.sampled_from(["multiclass", "multilabel"]),
    st.booleans(),
)
def test_areas_are_the_same_to_the_bit(images: int, classes: int, seed: int, task: Task, is_tied: bool) -> None:
    sample = scored(images, classes, seed, task)
    if not is_tied:
        sample = replace(sample, probabilities=np.random.default_rng(seed).random((images, classes)))
    for weights in (np.ones((1, images)), drawn(images, 9)):
        found = Weighted(sample, weights)
        for index in range(classes):
            expected = areas_at_every_threshold(sample.probabilities[:, index], sample.truth[:, index], weights)
            np.testing.assert_array_equal(found.average_precision[:, index], expected[0])
            np.testing.assert_array_equal(found.auroc[:, index], expected[1])


def test_the_areas_of_a_class_with_few_of_many_images_are_those_at_every_threshold() -> None:
    images, weights = 15_000, drawn(15_000, 40)
    sample = scored(images, 2, 0)
    rare = replace(
        sample,
        probabilities=np.random.default_rng(0).random((images, 2)),
        truth=np.arange(images)[:, None] % 2_000 == np.arange(2),
    )
    expected = areas_at_every_threshold(rare.probabilities[:, 0], rare.truth[:, 0], weights)
    np.testing.assert_array_equal(Weighted(rare, weights).auroc[:, 0], expected[1])


def test_metrics_of_the_set_and_of_the_classes_share_what_they_are_computed_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample, computed, areas = scored(200, 5, 3), [], weighted._areas
    expected = overall(sample), per_class(sample)
    monkeypatch.setattr(weighted, "_areas", lambda *args: computed.append(1) or areas(*args))
    assert overall_and_per_class(sample) == expected
    # Once per class for the value itself, and once for all draws.
    assert len(computed) == 2 * 5
