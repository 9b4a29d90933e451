import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.metrics import measure


def test_figures_worked_out_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    metrics = measure(probabilities, np.array([0, 0, 1, 1]), "binary")
    assert metrics.accuracy == 0.75
    assert metrics.balanced_accuracy == 0.75
    assert metrics.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics.loss == pytest.approx(-np.log([0.8, 0.6, 0.7, 0.1]).mean())


def test_balanced_accuracy_does_not_reward_naming_the_large_class() -> None:
    metrics = measure(np.tile([0.9, 0.1], (10, 1)), np.array([0] * 9 + [1]), "multiclass")
    assert metrics.accuracy == 0.9 and metrics.balanced_accuracy == 0.5


def test_multilabel_counts_a_row_as_right_only_when_all_its_labels_are() -> None:
    probabilities = np.array([[0.9, 0.8], [0.9, 0.1], [0.2, 0.1]])
    truth = np.array([[1, 1], [1, 1], [0, 0]], dtype=float)
    metrics = measure(probabilities, truth, "multilabel")
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.balanced_accuracy == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert metrics.mean_average_precision == pytest.approx((1 + 5 / 6) / 2)


def test_a_class_without_images_does_not_break_the_figures() -> None:
    metrics = measure(np.eye(3)[[0, 2, 0]], np.array([0, 0, 0]), "multiclass")
    assert metrics.accuracy == metrics.balanced_accuracy == pytest.approx(2 / 3)
    assert metrics.mean_average_precision == pytest.approx(1.0)


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 40))
def test_everything_but_the_loss_lies_between_0_and_1(seed: int, classes: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), images)
    metrics = measure(probabilities, rng.integers(classes, size=images), "multiclass")
    for monitor in ("accuracy", "balanced_accuracy", "macro_f1", "mean_average_precision"):
        assert 0 <= metrics.by(monitor) <= 1 + 1e-9
    assert metrics.by("loss") <= 0
