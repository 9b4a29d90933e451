import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from thaw.training.loss import balanced_weights, class_counts, imbalance, make_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]])


def test_multiclass_is_softmax_cross_entropy() -> None:
    targets = torch.tensor([0, 2])
    expected = -LOGITS.log_softmax(1)[torch.arange(2), targets].mean()
    assert make_loss("multiclass", None, 0.0)(LOGITS, targets) == pytest.approx(float(expected))


def test_binary_equals_a_two_class_softmax_over_zero_and_the_logit() -> None:
    logits, targets = torch.tensor([[1.5], [-0.5], [3.0]]), torch.tensor([1, 1, 0])
    pairs = torch.cat([torch.zeros_like(logits), logits], dim=1)
    for weights in (None, torch.tensor([0.5, 3.0])):
        expected = functional.cross_entropy(pairs, targets, weight=weights)
        assert make_loss("binary", weights, 0.0)(logits, targets) == pytest.approx(float(expected))


def test_multilabel_is_the_mean_of_one_sigmoid_cross_entropy_per_label() -> None:
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    expected = functional.binary_cross_entropy(LOGITS.sigmoid(), targets)
    assert make_loss("multilabel", None, 0.0)(LOGITS, targets) == pytest.approx(float(expected))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_label_smoothing_gives_a_confident_correct_prediction_a_loss(task: str) -> None:
    logits = torch.tensor([[20.0]])
    targets = torch.tensor([1]) if task == "binary" else torch.tensor([[1.0]])
    assert make_loss(task, None, 0.0)(logits, targets) < 1e-6  # type: ignore[arg-type]
    assert make_loss(task, None, 0.1)(logits, targets) > 0.5  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balanced_weights_give_every_class_with_images_the_same_total_weight(labels: list[int]) -> None:
    targets = np.array(labels)
    weights = balanced_weights(targets, 5, "multiclass").numpy()
    counts = class_counts(targets, 5)
    fractions = (weights * counts)[counts > 0]
    assert np.allclose(fractions, fractions[0], rtol=1e-5)
    assert (weights[counts == 0] == 1).all()


def test_imbalance_is_the_ratio_of_the_largest_class_to_the_smallest() -> None:
    assert imbalance(np.array([0] * 9 + [1] * 3), 4) == 3.0
    assert imbalance(np.array([[1, 1], [1, 0]]), 2) == 2.0
