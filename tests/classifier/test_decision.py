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
