import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.decision import Decision, cost_matrix
from thaw.recipe import Task

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"


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


@given(st.integers(0, 10**6), st.sampled_from(get_args(Task)), st.integers(0, 3), st.booleans())
def test_the_function_of_the_documentation_gives_the_same_labels(
    seed: int, task: Task, thresholds: int, has_costs: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Files have the costs of more than a hundred classes in another form.
    classes = 2 if task == "binary" else int(rng.choice([3, 101]))
    pairs = zip(rng.permutation(classes)[:thresholds].tolist(), rng.random(thresholds).tolist(), strict=False)
    costs = rng.integers(0, 9, (classes, classes)) * ~np.eye(classes, dtype=bool)
    is_single = task != "multilabel"
    decision = Decision(tuple(pairs), tuple(map(tuple, costs.tolist())) if has_costs and is_single else ())
    probabilities = rng.dirichlet(np.ones(classes), 20) if is_single else rng.random((20, classes))
    names: dict[str, Any] = {}
    exec(DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1].partition("```")[0], names)
    stored = json.loads(json.dumps(decision.to_json()))
    found = [names["predicted_classes"](row, stored, task) for row in probabilities]
    assert found == [np.flatnonzero(row).tolist() for row in decision.labels(probabilities, task)]


def test_a_decision_says_what_it_replaces_unless_it_is_the_default_one() -> None:
    rare = Decision(((1, 0.03),), reason="recall of crack at least 0.99")
    assert rare.describe("binary") == "recall of crack at least 0.99; labels are not always the most likely class"
    assert rare.describe("multilabel").endswith("labels are not always all labels at 0.5 or more")
    assert Decision().describe("multiclass") == ""


def test_files_have_the_costs_of_many_classes_by_what_is_unusual() -> None:
    weights = np.random.default_rng(0).uniform(0.2, 9.0, 300)
    costs = cost_matrix(weights.tolist(), [(0, 5, 70.0), (7, 0, 0.5), (299, 298, 0.0)])
    decision = Decision(((3, 0.2),), costs, reason="costs")
    written = json.dumps(decision.to_json())
    read = Decision.from_json(json.loads(written))
    assert read == decision and len(written) < 10_000
    probabilities = np.random.default_rng(1).dirichlet(np.ones(300), 50)
    assert np.array_equal(read.labels(probabilities, "multiclass"), decision.labels(probabilities, "multiclass"))


def test_files_have_the_costs_of_few_classes_as_a_table() -> None:
    costs = cost_matrix(np.arange(1.0, 101.0).tolist())
    assert Decision(costs=costs).to_json()["costs"] == [list(row) for row in costs]


def test_costs_of_more_classes_than_there_are_take_no_memory() -> None:
    values = {"thresholds": [], "reason": "", "costs": {"of_missing": [1.0] * 100_000, "other": []}}
    with pytest.raises(ValueError, match="not for 3 classes"):
        Decision.from_json(values, 3)


def test_costs_become_an_array_once_and_not_for_every_batch() -> None:
    converted = []

    class Row(tuple[float, ...]):
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            converted.append(self)
            return np.array(tuple(self))

    decision = Decision(costs=(Row((0.0, 1.0)), Row((9.0, 0.0))))
    first = decision.labels(np.array([[0.6, 0.4]]), "multiclass")
    before = len(converted)
    again = decision.labels(np.array([[0.6, 0.4]]), "multiclass")
    assert first.tolist() == again.tolist() == [[False, True]] and len(converted) == before > 0


def test_class_weights_of_many_classes_decide_as_their_table_of_costs_does() -> None:
    weights = np.random.default_rng(0).uniform(0.2, 9.0, 1_000)
    decision = Decision(((5, 0.3),), cost_matrix(weights.tolist()))
    probabilities = np.random.default_rng(1).dirichlet(np.full(1_000, 0.02), 500).astype(np.float32)
    expected = (-(probabilities @ np.array(decision.costs))).argmax(axis=1)
    expected[probabilities[:, 5] >= 0.3] = 5
    is_open = (expected != 5) | (probabilities[:, 5] >= 0.3)
    found = decision.labels(probabilities, "multiclass").argmax(axis=1)
    assert is_open.sum() > 400 and (found == expected)[is_open].all()
