import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from thaw.classifier.decision import Decision
from thaw.classifier.metrics import measure, wilson
from thaw.evaluation.metrics import Scored, calibration_error, fraction, overall, per_class
from thaw.recipe import Task


def scored(count: int, classes: int, seed: int, task: Task = "multiclass", groups: np.ndarray | None = None) -> Scored:
    """Images whose class is guessed better than chance, with some equal probabilities."""
    rng = np.random.default_rng(seed)
    if task == "multilabel":
        truth = rng.random((count, classes)) < 0.4
        probabilities = np.clip(truth * 0.3 + rng.random((count, classes)) * 0.7, 0, 1).round(2)
    else:
        labels = rng.integers(classes, size=count)
        logits = rng.normal(size=(count, classes)) + 1.5 * (labels[:, None] == np.arange(classes))
        probabilities = np.exp(logits).round(1) + 0.01
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        truth = labels[:, None] == np.arange(classes)
    return Scored(task, probabilities, truth, Decision().labels(probabilities, task), groups)


@settings(max_examples=25)
@given(st.integers(20, 80), st.integers(2, 4), st.integers(0, 1000), st.sampled_from(["multiclass", "multilabel"]))
def test_figures_are_those_of_training_and_of_scikit_learn(count: int, classes: int, seed: int, task: Task) -> None:
    this = scored(count, classes, seed, task)
    if not (this.truth.any(axis=0) & ~this.truth.all(axis=0)).all():
        return
    targets = this.truth.astype(np.float32) if task == "multilabel" else this.truth.argmax(axis=1)
    expected, found = measure(this.probabilities, targets, task), overall(this)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "mean_average_precision", "loss"):
        assert getattr(found, name).value == pytest.approx(getattr(expected, name), abs=1e-5), name
    areas = [sk.roc_auc_score(this.truth[:, index], this.probabilities[:, index]) for index in range(classes)]
    assert found.auroc and found.auroc.value == pytest.approx(np.mean(areas), abs=1e-6)
    for index, item in enumerate(per_class(this)):
        assert item.auroc and item.auroc.value == pytest.approx(areas[index], abs=1e-6)
        truth, predicted = this.truth[:, index], this.predicted[:, index]
        assert item.recall and item.recall.value == pytest.approx(sk.recall_score(truth, predicted))
        assert (item.precision.value if item.precision else 0.0) == pytest.approx(
            sk.precision_score(truth, predicted, zero_division=0.0)
        )


@settings(max_examples=20)
@given(st.integers(5, 60), st.integers(2, 4), st.integers(0, 1000))
def test_every_interval_holds_its_figure(count: int, classes: int, seed: int) -> None:
    this = scored(count, classes, seed)
    figures = [*vars(overall(this)).values(), *(value for item in per_class(this) for value in vars(item).values())]
    for estimate in figures:
        assert estimate is None or estimate.low <= estimate.value <= estimate.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = overall(scored(20_000, 3, 1)).balanced_accuracy.value
    samples = [overall(scored(120, 3, seed)).balanced_accuracy for seed in range(2, 102)]
    covered = sum(item.low <= truth <= item.high for item in samples)
    assert 88 <= covered <= 100


def test_images_that_come_in_groups_tell_less_than_images_alone() -> None:
    alone = scored(60, 2, 5)
    repeated = [np.repeat(values, 5, axis=0) for values in (alone.probabilities, alone.truth, alone.predicted)]
    groups = np.repeat(np.arange(60), 5)
    blind, aware = Scored("multiclass", *repeated), Scored("multiclass", *repeated, groups)

    def width(item: Scored) -> float:
        found = overall(item).accuracy
        return found.high - found.low

    assert width(aware) > 1.7 * width(blind)
    assert width(aware) == pytest.approx(width(alone), rel=0.2)


def test_a_perfect_score_on_few_images_is_no_certainty() -> None:
    truth = np.eye(2, dtype=bool)[[0] * 10 + [1] * 4]
    perfect = Scored("binary", truth * 0.8 + 0.1, truth, truth)
    found = overall(perfect)
    assert found.accuracy.value == found.balanced_accuracy.value == 1.0
    assert found.accuracy.low == pytest.approx(wilson(1.0, 14)[0])
    assert found.balanced_accuracy.low == pytest.approx(wilson(1.0, 4)[0])
    assert per_class(perfect)[1].recall.low == pytest.approx(wilson(1.0, 4)[0])  # type: ignore[union-attr]


def test_a_class_without_images_has_no_recall_and_one_never_given_no_precision() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0, 1, 1]]
    given_labels = np.eye(3, dtype=bool)[[0, 0, 0, 0]]
    classes = per_class(Scored("multiclass", np.full((4, 3), 1 / 3), truth, given_labels))
    assert classes[2].recall is None and classes[2].average_precision is None
    assert classes[1].precision is None and classes[1].recall and classes[1].recall.value == 0.0


def test_calibration_error_is_none_for_honest_and_large_for_boastful_probabilities() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, 4000)
    right = rng.random(4000) < sure
    probabilities = np.stack([np.where(right, sure, 1 - sure), np.where(right, 1 - sure, sure)], axis=1)
    truth = np.eye(2, dtype=bool)[np.zeros(4000, int)]
    honest = Scored("binary", probabilities, truth, Decision().labels(probabilities, "binary"))
    assert calibration_error(honest).value < 0.03
    boastful = np.where(probabilities > 0.5, 0.99, 0.01)
    loud = Scored("binary", boastful, truth, Decision().labels(boastful, "binary"))
    assert calibration_error(loud).value > 0.2


def test_a_share_of_nothing_is_unknown() -> None:
    assert fraction(np.zeros(0, bool)) is None
    half = fraction(np.array([True, False]))
    assert half and half.value == 0.5 and half.low < 0.2
