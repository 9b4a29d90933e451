import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tests.metrics.samples import scored, targets_of
from thaw.classifier.decision import Decision
from thaw.metrics import (
    METRICS,
    MONITORS,
    Estimate,
    Estimates,
    MetricValues,
    Scored,
    differences,
    influence_scores,
    measure,
    most_likely,
    overall,
    per_class,
    per_epoch_metrics,
    rates_of_class,
    values_of,
    values_without_each,
    wilson,
)
from thaw.recipe import Task

TASKS: list[Task] = ["multiclass", "multilabel"]


def known(estimates: Estimates, name: str) -> Estimate:
    estimate = estimates[name]
    assert estimate is not None
    return estimate


@settings(max_examples=25)
@given(st.integers(20, 80), st.integers(2, 4), st.integers(0, 1000), st.sampled_from(TASKS))
def test_values_are_those_of_scikit_learn(images: int, classes: int, seed: int, task: Task) -> None:
    sample = scored(images, classes, seed, task)
    truth, predicted, probabilities = sample.truth, sample.predicted, sample.probabilities
    if not (truth.any(axis=0) & ~truth.all(axis=0)).all():
        return
    if task == "multilabel":
        recalls = [
            sk.recall_score(truth[:, c], predicted[:, c], pos_label=side) for c in range(classes) for side in (0, 1)
        ]
        loss = np.mean([sk.log_loss(truth[:, c], probabilities[:, c].clip(1e-12, 1 - 1e-12)) for c in range(classes)])
    else:
        recalls = [sk.recall_score(truth[:, c], predicted[:, c]) for c in range(classes)]
        loss = sk.log_loss(truth.argmax(axis=1), probabilities, labels=np.arange(classes))
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": np.mean(recalls),
        "macro_f1": sk.f1_score(truth, predicted, average="macro", zero_division=0.0),
        "mean_average_precision": sk.average_precision_score(truth, probabilities, average="macro"),
        "auroc": sk.roc_auc_score(truth, probabilities, average="macro"),
        "loss": loss,
    }
    estimates, after_epoch = overall(sample), measure(probabilities, targets_of(sample), task)
    for name, value in expected.items():
        assert known(estimates, name).value == pytest.approx(value, abs=1e-5), name
        assert name not in MONITORS or after_epoch[name] == pytest.approx(value, abs=1e-5), name
    for c, item in enumerate(per_class(sample)):
        of_class = {
            "precision": sk.precision_score(truth[:, c], predicted[:, c], zero_division=0.0),
            "recall": sk.recall_score(truth[:, c], predicted[:, c]),
            "f1": sk.f1_score(truth[:, c], predicted[:, c]),
            "average_precision": sk.average_precision_score(truth[:, c], probabilities[:, c]),
            "auroc": sk.roc_auc_score(truth[:, c], probabilities[:, c]),
        }
        for name, value in of_class.items():
            found = item[name]
            assert (found.value if found else 0.0) == pytest.approx(value, abs=1e-6), name


@settings(max_examples=20)
@given(st.integers(5, 60), st.integers(2, 4), st.integers(0, 1000))
def test_every_interval_contains_its_value(images: int, classes: int, seed: int) -> None:
    sample = scored(images, classes, seed)
    for estimate in [*overall(sample).values(), *(item for found in per_class(sample) for item in found.values())]:
        assert estimate is None or estimate.low <= estimate.value <= estimate.high


def test_intervals_have_about_their_nominal_coverage() -> None:
    everything = scored(20_000, 3, 1)
    truth = np.mean([everything.predicted[everything.truth[:, c], c].mean() for c in range(3)])
    samples = [known(overall(scored(120, 3, seed)), "balanced_accuracy") for seed in range(2, 102)]
    assert 88 <= sum(item.low <= truth <= item.high for item in samples) <= 100


def test_intervals_over_groups_are_wider() -> None:
    alone = scored(60, 2, 5)
    repeated = [np.repeat(values, 5, axis=0) for values in (alone.probabilities, alone.truth, alone.predicted)]
    without_groups, with_groups = (
        Scored("multiclass", *repeated, groups) for groups in (None, np.repeat(np.arange(60), 5))
    )

    def width(sample: Scored) -> float:
        accuracy = known(overall(sample), "accuracy")
        return accuracy.high - accuracy.low

    assert width(with_groups) > 1.7 * width(without_groups)
    assert width(with_groups) == pytest.approx(width(alone), rel=0.2)


def test_a_perfect_score_on_few_images_has_a_wide_interval() -> None:
    truth = np.eye(2, dtype=bool)[[0] * 10 + [1] * 4]
    perfect = Scored("binary", truth * 0.8 + 0.1, truth, truth)
    estimates = overall(perfect)
    accuracy, balanced = known(estimates, "accuracy"), known(estimates, "balanced_accuracy")
    assert accuracy.value == balanced.value == 1.0
    assert accuracy.low == pytest.approx(wilson(1.0, 14)[0])
    assert balanced.low == pytest.approx(wilson(1.0, 4)[0])
    assert known(per_class(perfect)[1], "recall").low == pytest.approx(wilson(1.0, 4)[0])


def test_metrics_of_a_class_without_images_or_predictions_are_undefined() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0, 1, 1]]
    predicted = np.eye(3, dtype=bool)[[0, 0, 0, 0]]
    classes = per_class(Scored("multiclass", np.full((4, 3), 1 / 3), truth, predicted))
    assert classes[2]["recall"] is None and classes[2]["average_precision"] is None
    assert classes[1]["precision"] is None and known(classes[1], "recall").value == 0.0


def test_calibration_error_is_low_for_calibrated_and_high_for_overconfident_predictions() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 4000)
    correct = rng.random(4000) < confidence
    first = np.where(correct, confidence, 1 - confidence)
    calibrated = np.stack([first, 1 - first], axis=1)
    overconfident = np.where(calibrated > 0.5, 0.99, 0.01)
    truth = np.eye(2, dtype=bool)[np.zeros(4000, int)]

    def error(probabilities: np.ndarray) -> float:
        sample = Scored("binary", probabilities, truth, Decision().labels(probabilities, "binary"))
        return known(overall(sample), "calibration_error").value

    assert error(calibrated) < 0.03 and error(overconfident) > 0.2


def test_differences_are_paired() -> None:
    sample = scored(80, 3, 0)
    assert all(item == Estimate(0.0, 0.0, 0.0) for item in differences(sample, sample).values())
    other = scored(80, 3, 1)
    better = Scored("multiclass", other.probabilities, other.truth, other.truth)
    change = differences(other, better)["accuracy"]
    assert change.value == pytest.approx(1 - other.correct.mean()) and change.low > 0


def test_recall_false_positive_rate_and_precision_of_a_class() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    predicted = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
    columns = [np.stack([~values, values], axis=1) for values in (truth, predicted)]
    rates = rates_of_class(Scored("binary", np.full((8, 2), 0.5), *columns), 1)
    assert rates.recall and rates.recall.value == pytest.approx(2 / 3)
    assert rates.false_positive_rate and rates.false_positive_rate.value == pytest.approx(1 / 5)
    assert rates.precision and rates.precision.value == pytest.approx(2 / 3)


def test_values_after_an_epoch_computed_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    values = measure(probabilities, np.array([0, 0, 1, 1]), "binary")
    assert values["accuracy"] == values["balanced_accuracy"] == 0.75
    assert values["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert values.loss == pytest.approx(-np.log([0.8, 0.6, 0.7, 0.1]).mean())


def test_balanced_accuracy_does_not_reward_predicting_the_majority_class() -> None:
    values = measure(np.tile([0.9, 0.1], (10, 1)), np.array([0] * 9 + [1]), "multiclass")
    assert values["accuracy"] == 0.9 and values["balanced_accuracy"] == 0.5


def test_multilabel_accuracy_requires_all_labels_of_an_image() -> None:
    probabilities = np.array([[0.9, 0.8], [0.9, 0.1], [0.2, 0.1]])
    values = measure(probabilities, np.array([[1, 1], [1, 1], [0, 0]], dtype=float), "multilabel")
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["balanced_accuracy"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert values["mean_average_precision"] == pytest.approx((1 + 5 / 6) / 2)


def test_a_class_without_validation_images_is_ignored_in_means_over_classes() -> None:
    values = measure(np.eye(3)[[0, 2, 0, 1]], np.array([0, 0, 0, 1]), "multiclass")
    assert values["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert values["mean_average_precision"] == pytest.approx(((2 + 3 / 4) / 3 + 1) / 2)


def test_how_images_that_are_all_of_one_class_are_ordered_says_nothing() -> None:
    alike = most_likely(np.eye(2)[[0, 1, 0, 0]], np.zeros(4, int), "binary")
    estimates, classes = overall(alike), per_class(alike)
    assert estimates["mean_average_precision"] is None and estimates["auroc"] is None
    assert classes[0]["average_precision"] is None and known(classes[0], "recall").value == 0.75
    values, metric = values_of(alike), METRICS["mean_average_precision"]
    assert values.by(metric.name) == 0.0 and not any(values_without_each(alike, metric))
    # A label that every image has says nothing about the other one.
    truth = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], float)
    found = measure(np.array([[0.9, 0.9], [0.2, 0.8], [0.8, 0.3], [0.7, 0.1]]), truth, "multilabel")
    assert found["mean_average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_each_of_two_images_without_which_a_metric_is_undefined_moves_nothing() -> None:
    pair = most_likely(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]), "binary")
    assert influence_scores(pair, METRICS["mean_average_precision"]).tolist() == [1.0, 1.0]


def test_a_multilabel_set_without_any_label_has_no_precision() -> None:
    values = measure(np.full((4, 2), 0.2), np.zeros((4, 2)), "multilabel")
    assert values["mean_average_precision"] == 0.0 and values["balanced_accuracy"] == 1.0


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 40))
def test_fractions_lie_between_0_and_1_and_losses_are_negated(seed: int, classes: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    values = measure(rng.dirichlet(np.ones(classes), images), rng.integers(classes, size=images), "multiclass")
    for metric in per_epoch_metrics():
        if metric.kind == "fraction":
            assert 0 <= values.by(metric.name) <= 1 + 1e-9
    assert values.by("loss") == -values.loss <= 0


def test_an_epoch_without_usable_predictions_has_no_finite_loss() -> None:
    values = MetricValues.undefined()
    assert math.isnan(values.loss) and values["accuracy"] == 0.0


def test_a_class_in_few_groups_is_no_better_known_than_they_are() -> None:
    classes, groups = np.repeat([0, 1], 100), np.concatenate([np.arange(100), np.repeat([100, 101], 50)])
    truth = np.eye(2, dtype=bool)[classes]
    perfect = Scored("binary", truth * 0.8 + 0.1, truth, truth, groups)
    crack = per_class(perfect)[1]
    low = wilson(1.0, 2)[0]
    for name in ("precision", "recall", "f1", "average_precision"):
        assert known(crack, name).low == pytest.approx(low)
    assert known(overall(perfect), "balanced_accuracy").low == pytest.approx(low)
    assert known(per_class(perfect)[0], "recall").low == pytest.approx(wilson(1.0, 100)[0])


def test_a_class_in_one_group_or_two_is_hardly_known() -> None:
    classes, rng = np.repeat([0, 1], [100, 40]), np.random.default_rng(0)
    truth = np.eye(2, dtype=bool)[classes]
    predicted = np.eye(2, dtype=bool)[np.where(rng.random(140) < 0.9, classes, 1 - classes)]
    probabilities = np.where(predicted, 0.8, 0.2) + rng.uniform(-0.1, 0.1, (140, 2))

    def width(groups: int, name: str) -> float:
        of_images = np.concatenate([np.arange(100), 100 + np.arange(40) % groups])
        found = known(overall(Scored("binary", probabilities, truth, predicted, of_images)), name)
        return found.high - found.low

    for name in ("balanced_accuracy", "macro_f1", "auroc", "mean_average_precision"):
        assert min(width(1, name), width(2, name)) > max(0.3, width(20, name))


def test_the_interval_of_a_class_in_three_groups_has_about_its_nominal_coverage() -> None:
    classes, groups = np.repeat([0, 1], [100, 60]), np.concatenate([np.arange(100), np.repeat([100, 101, 102], 20)])
    truth, covered = np.eye(2, dtype=bool)[classes], {"recall": 0, "balanced_accuracy": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        # Images of one group are predicted correctly together, more or less.
        is_correct = rng.random(160) < np.concatenate([np.full(100, 0.9), np.repeat(rng.uniform(0.5, 0.9, 3), 20)])
        predicted = np.eye(2, dtype=bool)[np.where(is_correct, classes, 1 - classes)]
        sample = Scored("binary", np.full((160, 2), 0.5), truth, predicted, groups)
        recall, balanced = known(per_class(sample)[1], "recall"), known(overall(sample), "balanced_accuracy")
        covered["recall"] += recall.low <= 0.7 <= recall.high
        covered["balanced_accuracy"] += balanced.low <= 0.8 <= balanced.high
    assert covered["recall"] >= 88 and covered["balanced_accuracy"] >= 88


def test_a_class_that_no_image_has_or_is_predicted_to_have_does_not_lower_macro_f1() -> None:
    values = measure(np.eye(3)[[0, 1, 0]], np.array([0, 1, 0]), "multiclass")
    assert values["macro_f1"] == values["balanced_accuracy"] == 1.0
    missed = measure(np.eye(3)[[0, 0, 0]], np.array([0, 1, 0]), "multiclass")
    assert missed["macro_f1"] == pytest.approx((0.8 + 0.0) / 2)
