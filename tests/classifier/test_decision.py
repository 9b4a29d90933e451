import numpy as np
import pytest

from thaw.classifier.decision import Decision
from thaw.recipe import Task


@pytest.mark.parametrize(
    ("decision", "task", "probabilities", "index"),
    [
        (Decision(), "multiclass", (0.2, 0.5, 0.3), 1),
        (Decision(((2, 0.1),)), "multiclass", (0.2, 0.5, 0.3), 2),
        (Decision(costs=((0, 1, 1), (1, 0, 1), (9, 9, 0))), "multiclass", (0.2, 0.5, 0.3), 2),
        (Decision(((0, 0.3),)), "multilabel", (0.4, 0.45, 0.1), 0),
        (Decision(((0, 0.3),)), "multilabel", (0.4, 0.6, 0.1), 1),
        (Decision(), "multilabel", (0.4, 0.45, 0.1), 1),
    ],
)
def test_the_top_label_is_the_most_likely_predicted_one(
    decision: Decision, task: Task, probabilities: tuple[float, ...], index: int
) -> None:
    assert decision.top_labels(np.array([probabilities]), task).tolist() == [index]


@pytest.mark.parametrize(
    ("decision", "probabilities", "index"),
    [
        # Below all thresholds, the most likely class is chosen, or the one of the lowest cost.
        (Decision(((0, 0.9), (1, 0.9), (2, 0.9))), (0.2, 0.5, 0.3), 1),
        (Decision(((0, 0.9), (1, 0.9), (2, 0.9)), ((0, 1, 1), (1, 0, 1), (9, 9, 0))), (0.2, 0.5, 0.3), 2),
        # Never below its own, whatever the others cost.
        (Decision(((1, 0.9),), ((0, 50, 50), (50, 0, 50), (50, 50, 0))), (0.2, 0.5, 0.3), 2),
        (Decision(((0, 0.1), (1, 0.1))), (0.2, 0.5, 0.3), 0),
    ],
)
def test_thresholds_come_before_costs(decision: Decision, probabilities: tuple[float, ...], index: int) -> None:
    assert decision.labels(np.array([probabilities]), "multiclass").argmax(axis=1).tolist() == [index]


def test_of_two_thresholds_of_a_label_the_first_holds() -> None:
    twice = Decision(((0, 0.3), (0, 0.9)))
    assert twice.labels(np.array([[0.5, 0.1]]), "multilabel").tolist() == [[True, False]]
    assert twice.labels(np.array([[0.4, 0.6]]), "multiclass").tolist() == [[True, False]]
