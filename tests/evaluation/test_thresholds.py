import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.decision import Decision
from thaw.errors import RecipeError
from thaw.evaluation.thresholds import (
    check_requirements,
    choose_decision,
    threshold_for_precision,
    threshold_for_recall,
    threshold_results,
)
from thaw.metrics import Scored
from thaw.recipe import DecisionSettings

PREDICTIONS = st.lists(st.tuples(st.floats(0, 1, width=16), st.booleans()), min_size=2, max_size=60)


def two_columns(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for value, _ in pairs]), np.array([flag for _, flag in pairs])


@given(PREDICTIONS, st.floats(0.01, 1.0))
def test_the_target_recall_is_reached_by_the_highest_such_threshold(
    pairs: list[tuple[float, bool]], target: float
) -> None:
    probabilities, truth = two_columns(pairs)
    threshold = threshold_for_recall(probabilities, truth, target)
    if not truth.any():
        assert threshold is None
        return
    assert threshold is not None
    assert (probabilities[truth] >= threshold).mean() >= target - 1e-9
    higher = probabilities[probabilities > threshold]
    if len(higher) and (probabilities[truth] > higher.min()).mean() >= target:
        raise AssertionError("a higher threshold reaches the recall")


@given(PREDICTIONS, st.floats(0.05, 1.0))
def test_the_target_precision_is_reached_or_impossible(pairs: list[tuple[float, bool]], target: float) -> None:
    probabilities, truth = two_columns(pairs)
    threshold = threshold_for_precision(probabilities, truth, target)
    reaches = [
        truth[probabilities >= value].mean() >= target and truth[probabilities >= value].any()
        for value in probabilities
    ]
    assert (threshold is not None) == any(reaches)
    if threshold is not None:
        assert truth[probabilities >= threshold].mean() >= target


def test_a_required_recall_sets_a_threshold_and_changes_the_labels() -> None:
    rng = np.random.default_rng(0)
    defective = rng.random(400) < 0.3
    p = np.clip(0.3 * defective + rng.normal(0.3, 0.15, 400), 0.01, 0.99)
    probabilities = np.stack([1 - p, p], axis=1)
    truth = np.stack([~defective, defective], axis=1)
    scored = Scored("binary", probabilities, truth, Decision().labels(probabilities, "binary"))
    decision = choose_decision(DecisionSettings(recall={"bad": 0.99}), ("good", "bad"), scored).decision
    (found,) = threshold_results(decision, ("good", "bad"), scored)
    assert found.recall and found.recall.value >= 0.99 and found.false_positive_rate
    plain = scored.predicted[:, 1]
    assert decision.labels(probabilities, "binary")[:, 1].sum() > plain.sum()
    assert Decision.from_json(decision.to_json()) == decision


def test_the_label_of_lowest_expected_cost_is_predicted() -> None:
    scored = Scored("multiclass", np.array([[0.9, 0.1]]), np.array([[True, False]]), np.array([[True, False]]))
    decision = choose_decision(DecisionSettings(costs={"crack": {"ok": 50}}), ("ok", "crack"), scored).decision
    assert decision.labels(scored.probabilities, "multiclass").tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DecisionSettings(recall={"dent": 0.9}), "no class 'dent'"),
        (DecisionSettings(costs={"ok": {"dent": 3}}), "no class 'dent'"),
    ],
)
def test_an_invalid_requirement_is_refused(settings: DecisionSettings, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_requirements(settings, ("ok", "crack"))


def test_a_requirement_that_validation_cannot_meet_is_reported_and_has_no_effect() -> None:
    scored = Scored("multiclass", np.array([[0.4, 0.6]]), np.array([[True, False]]), np.array([[False, True]]))
    found = choose_decision(DecisionSettings(precision={"crack": 0.9}), ("ok", "crack"), scored)
    assert (
        found.decision == Decision()
        and "no threshold reaches a precision of 0.9 for crack on validation, which has 0 images" in found.unmet[0]
    )
