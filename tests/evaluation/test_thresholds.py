from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.decision import Decision
from thaw.errors import RecipeError
from thaw.evaluation.class_prior import weighted_decision
from thaw.evaluation.thresholds import (
    check_requirements,
    choose_decision,
    required_classes,
    threshold_for_precision,
    threshold_for_recall,
    threshold_results,
)
from thaw.metrics import Scored
from thaw.recipe import DecisionSettings, Task

PREDICTIONS = st.lists(st.tuples(st.floats(0, 1, width=16), st.booleans()), min_size=2, max_size=60)


CLASSES = ("ok", "crack", "dent")


def scored_images(seed: int, task: Task, classes: int = 3) -> Scored:
    """Images whose probabilities say something about their labels."""
    rng = np.random.default_rng(seed)
    truth = np.eye(classes, dtype=bool)[rng.integers(classes, size=60)]
    if task == "multilabel":
        truth = rng.random((60, classes)) < 0.4
        probabilities = 1 / (1 + np.exp(-(2.0 * truth - 1.0 + rng.normal(size=truth.shape))))
    else:
        powers = np.exp(1.5 * truth + rng.normal(size=truth.shape))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
    return Scored(task, probabilities, truth, Decision().labels(probabilities, task))


@given(
    st.integers(0, 10_000),
    st.sampled_from(["multiclass", "binary", "multilabel"]),
    st.dictionaries(st.sampled_from(CLASSES[:2]), st.floats(0.1, 1.0)),
    st.dictionaries(st.sampled_from(CLASSES[:2]), st.floats(0.1, 1.0)),
    st.sampled_from(
        [Decision(), Decision(costs=((0, 1), (9, 0))), Decision(((0, 0.7),), reason="recall of ok at least 0.2")]
    ),
)
def test_every_requirement_is_met_on_validation_or_reported(
    seed: int, task: Task, recall: dict[str, float], precision: dict[str, float], earlier: Decision
) -> None:
    scored, classes = scored_images(seed, task, 2), CLASSES[:2]
    found = choose_decision(DecisionSettings(recall=recall, precision=precision), classes, scored, earlier)
    predicted = found.decision.labels(scored.probabilities, task)
    for kind, targets in (("recall", recall), ("precision", precision)):
        for name, target in targets.items():
            index = classes.index(name)
            of, got = (scored.truth, predicted) if kind == "recall" else (predicted, scored.truth)
            text = f"{kind} of {name} at least {target:g}"
            if text in found.decision.reason.split("; "):
                assert got[of[:, index], index].mean() >= target - 1e-6
            else:
                assert any(f"reaches a {kind} of {target:g} for {name}" in sentence for sentence in found.unmet)


def test_a_requirement_is_met_among_the_images_that_an_earlier_one_leaves() -> None:
    scored = scored_images(0, "multiclass")
    settings = DecisionSettings(recall={"crack": 0.9, "dent": 0.5})
    found = choose_decision(settings, CLASSES, scored)
    assert not found.unmet and [index for index, _ in found.decision.thresholds] == [1, 2]
    predicted = found.decision.labels(scored.probabilities, "multiclass")
    assert predicted[scored.truth[:, 1], 1].mean() >= 0.9 and predicted[scored.truth[:, 2], 2].mean() >= 0.5
    both = choose_decision(DecisionSettings(recall={"crack": 1.0, "dent": 1.0}), CLASSES, scored)
    assert (
        both.decision.reason == "recall of crack at least 1" and "and keeps recall of crack at least 1" in both.unmet[0]
    )


WEIGHTED = weighted_decision(np.array([0.5, 2.0, 4.0]), "multiclass", "balanced")


def test_requirements_replace_earlier_ones_and_leave_class_weights() -> None:
    scored = scored_images(0, "multiclass")
    first = choose_decision(DecisionSettings(recall={"crack": 0.3, "dent": 0.2}), CLASSES, scored, WEIGHTED).decision
    assert first.costs == WEIGHTED.costs and [index for index, _ in first.thresholds] == [1, 2]
    assert first.reason == f"{WEIGHTED.reason}; recall of crack at least 0.3; recall of dent at least 0.2"
    second = choose_decision(DecisionSettings(recall={"crack": 0.4}), CLASSES, scored, first).decision
    assert second.costs == WEIGHTED.costs and [index for index, _ in second.thresholds] == [1]
    assert second.reason == f"{WEIGHTED.reason}; recall of crack at least 0.4"
    costs = choose_decision(DecisionSettings(costs={"dent": {"ok": 3}}), CLASSES, scored, second).decision
    assert costs == Decision((), ((0, 1, 1), (1, 0, 1), (3, 1, 0)), "lowest expected cost: dent>ok=3")
    assert choose_decision(DecisionSettings(recall={"crack": 0.3}), CLASSES, scored, costs).decision.costs == ()
    assert choose_decision(DecisionSettings(), CLASSES, scored, first).decision == first


@pytest.mark.parametrize("none", [{"recall": {}}, {"precision": {}}, {"costs": {}}])
def test_requirements_that_are_set_to_none_are_taken_back(none: dict[str, dict[str, float]]) -> None:
    scored = scored_images(0, "multiclass")
    for trained in (Decision(), WEIGHTED):
        with_both = DecisionSettings(recall={"crack": 0.3}, precision={"crack": 0.1})
        first = choose_decision(with_both, CLASSES, scored, trained).decision
        assert first.thresholds
        assert choose_decision(DecisionSettings(**none), CLASSES, scored, first).decision == trained
        assert choose_decision(DecisionSettings(coverage=0.5), CLASSES, scored, first).decision == first


def test_costs_and_requirements_can_be_asked_for_together() -> None:
    scored = scored_images(0, "multiclass")
    settings = DecisionSettings(costs={"dent": {"ok": 3}}, recall={"crack": 0.9})
    found = choose_decision(settings, CLASSES, scored).decision
    assert found.costs[2] == (3.0, 1.0, 0.0) and [index for index, _ in found.thresholds] == [1]
    assert found.reason == "lowest expected cost: dent>ok=3; recall of crack at least 0.9"


def test_labels_without_a_requirement_keep_the_thresholds_of_their_weights() -> None:
    scored = scored_images(0, "multilabel")
    weighted = weighted_decision(np.array([0.5, 2.0, 4.0]), "multilabel", "balanced")
    first = choose_decision(DecisionSettings(recall={"crack": 0.9}), CLASSES, scored, weighted).decision
    thresholds, before = dict(first.thresholds), dict(weighted.thresholds)
    assert (thresholds[0], thresholds[2]) == (before[0], before[2]) and thresholds[1] != before[1]
    none = scored.truth.copy()
    none[:, 1] = False
    unmet = choose_decision(DecisionSettings(recall={"crack": 0.9}), CLASSES, replace(scored, truth=none), weighted)
    assert unmet.unmet and unmet.decision == weighted


def test_a_label_of_which_nothing_is_required_any_more_has_the_threshold_of_its_weight_again() -> None:
    scored = scored_images(0, "multilabel")
    weighted = weighted_decision(np.array([0.5, 2.0, 4.0]), "multilabel", "balanced")
    first = choose_decision(DecisionSettings(recall={"crack": 0.9}), CLASSES, scored, weighted).decision
    stored = Decision.from_json(first.to_json())
    second = choose_decision(DecisionSettings(recall={"dent": 0.9}), CLASSES, scored, stored).decision
    directly = choose_decision(DecisionSettings(recall={"dent": 0.9}), CLASSES, scored, weighted).decision
    assert stored == first and second == directly
    assert dict(second.thresholds)[1] == dict(weighted.thresholds)[1] != dict(first.thresholds)[1]
    of_earlier_release = {key: value for key, value in first.to_json().items() if key != "weight_thresholds"}
    second = choose_decision(
        DecisionSettings(recall={"dent": 0.9}), CLASSES, scored, Decision.from_json(of_earlier_release)
    ).decision
    assert {index for index, _ in second.thresholds} == {0, 2}


@pytest.mark.parametrize("name", ["crack", "crack; dent", "crack at least; 1"])
def test_the_classes_of_which_something_is_required_are_known_whatever_their_names(name: str) -> None:
    classes, scored = (name, "ok", "dent"), scored_images(0, "multiclass")
    settings = DecisionSettings(recall={name: 0.5}, precision={"dent": 0.3})
    found = choose_decision(settings, classes, scored)
    assert not found.unmet and required_classes(found.decision, classes) == (0, 2)
    assert required_classes(WEIGHTED, classes) == ()


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
        check_requirements(settings, ("ok", "crack"), "binary")


def test_costs_of_an_image_with_several_labels_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"^decision\.costs: an image has several labels; require a recall"):
        check_requirements(DecisionSettings(costs={"ok": {"crack": 3}}), ("ok", "crack"), "multilabel")


def test_a_requirement_that_validation_cannot_meet_is_reported_and_has_no_effect() -> None:
    scored = Scored("multiclass", np.array([[0.4, 0.6]]), np.array([[True, False]]), np.array([[False, True]]))
    found = choose_decision(DecisionSettings(precision={"crack": 0.9}), ("ok", "crack"), scored)
    assert (
        found.decision == Decision()
        and "no threshold reaches a precision of 0.9 for crack on validation, which has 0 images" in found.unmet[0]
    )
