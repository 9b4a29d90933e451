"""Class weights move from the probabilities to the decision, and the predicted labels stay the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thaw.evaluation.class_prior import logit_shift, weighted_decision, without_weights
from thaw.recipe import Task


@given(st.integers(0, 10_000), st.sampled_from(["multiclass", "binary", "multilabel"]))
def test_the_decision_on_true_probabilities_gives_the_labels_of_training(seed: int, task: Task) -> None:
    rng = np.random.default_rng(seed)
    classes = 2 if task == "binary" else 4
    weights = rng.uniform(0.2, 9.0, classes)
    trained = rng.random((50, classes)) if task == "multilabel" else rng.dirichlet(np.ones(classes), 50)
    true = without_weights(trained, weights, task)
    found = weighted_decision(weights, task, "balanced").labels(true, task)
    expected = trained >= 0.5 if task == "multilabel" else trained.argmax(axis=1)[:, None] == np.arange(classes)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_the_shift_of_the_logits_gives_the_same_probabilities(task: Task) -> None:
    rng = np.random.default_rng(0)
    weights = np.array([0.5, 4.0]) if task == "binary" else np.array([0.5, 4.0, 1.5])
    logits = torch.from_numpy(rng.normal(size=(20, 1 if task == "binary" else 3)))

    def probabilities(values: torch.Tensor) -> np.ndarray:
        if task == "multilabel":
            return values.sigmoid().numpy()
        if task == "binary":
            return torch.cat([(-values).sigmoid(), values.sigmoid()], dim=1).numpy()
        return values.softmax(dim=1).numpy()

    shifted = probabilities(logits + logit_shift(weights, task))
    np.testing.assert_allclose(shifted, without_weights(probabilities(logits), weights, task))


def test_probabilities_are_true_again() -> None:
    # Of images with this feature one in ten is rare; with nine times the weight a classifier says one in two.
    weights = np.array([1.0, 9.0])
    np.testing.assert_allclose(without_weights(np.array([[0.5, 0.5]]), weights, "multiclass"), [[0.9, 0.1]])
