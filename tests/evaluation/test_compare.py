import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from thaw.classifier.decision import Decision
from thaw.errors import DataError
from thaw.evaluation.compare import compare
from thaw.evaluation.records import Records
from thaw.metrics import Scored

CLASSES = ("ok", "crack")


def records(count: int, accuracy: float, seed: int, classes: tuple[str, ...] = CLASSES) -> Records:
    """A run of about this accuracy; the true labels are the same for every seed."""
    labels = np.random.default_rng(0).integers(2, size=count)
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(count) < accuracy, labels, 1 - labels)
    probabilities = np.where(predicted[:, None] == np.arange(2), 0.8, 0.2)
    truth = labels[:, None] == np.arange(2)
    scored = Scored("binary", probabilities, truth, Decision().labels(probabilities, "binary"))
    paths, none = tuple(f"{index}.png" for index in range(count)), np.zeros(count, bool)
    return Records(
        paths, classes, scored, ((),) * count, ambiguous=none, out_of_distribution=none, distance=np.zeros(count)
    )


def of_predictions(labels: Iterable[int], wrong: Iterable[int]) -> Records:
    """A run on images with labels, the remainder of 2, that predicts all but some rows correctly."""
    truth = np.array(list(labels)) % 2
    predicted = truth.copy()
    predicted[list(wrong)] ^= 1
    made = records(len(truth), 1.0, 0)
    probabilities = np.where(predicted[:, None] == np.arange(2), 0.8, 0.2)
    scored = Scored("binary", probabilities, truth[:, None] == np.arange(2), Decision().labels(probabilities, "binary"))
    return replace(made, scored=scored)


def test_a_better_run_is_recognised() -> None:
    found = compare(records(400, 0.8, 1), records(400, 0.95, 2))
    assert found.differences["accuracy"].low > 0 and found.p_value is not None and found.p_value < 0.001
    assert found.differences["loss"].value < 0
    assert re.fullmatch(
        r"The second run is better: \+\d+\.\d points accuracy \(95% interval \+\d+\.\d to \+\d+\.\d\)", found.verdict
    )
    change, reverse = found.verdict, compare(records(400, 0.95, 2), records(400, 0.8, 1)).verdict
    assert reverse == change.replace("second", "first")


def test_equal_runs_are_rarely_found_different() -> None:
    false_positives = sum(
        not (found.differences["accuracy"].low <= 0 <= found.differences["accuracy"].high)
        for seed in range(40)
        for found in [compare(records(200, 0.9, seed + 10), records(200, 0.9, seed + 500))]
    )
    assert false_positives <= 6
    same = compare(records(50, 0.9, 1), records(50, 0.9, 1))
    assert same.p_value == 1.0 and same.differences["accuracy"].value == 0.0
    assert same.verdict.startswith("No significant difference on 50 images: +0.0 points accuracy")


def test_only_images_tested_by_both_runs_count() -> None:
    first, second = records(100, 0.9, 1), records(100, 0.9, 1)
    half = slice(50, 100)
    scored = second.scored
    part = replace(
        second,
        paths=second.paths[half],
        scored=replace(
            scored,
            probabilities=scored.probabilities[half],
            truth=scored.truth[half],
            predicted=scored.predicted[half],
        ),
    )
    found = compare(first, part)
    assert (found.images, found.excluded, found.only_first, found.only_second) == (50, 50, 0, 0)


def test_the_order_of_classes_does_not_matter() -> None:
    first = records(100, 0.9, 1)
    scored = first.scored
    flipped = replace(
        first,
        classes=CLASSES[::-1],
        scored=replace(
            scored,
            probabilities=scored.probabilities[:, ::-1],
            truth=scored.truth[:, ::-1],
            predicted=scored.predicted[:, ::-1],
        ),
    )
    assert compare(first, flipped).differences["accuracy"].value == 0.0


def test_runs_with_other_images_classes_or_labels_are_refused() -> None:
    first = records(20, 0.9, 1)
    with pytest.raises(DataError, match="no image was tested by both"):
        compare(first, replace(first, paths=tuple(f"other-{path}" for path in first.paths)))
    with pytest.raises(DataError, match="classes ok, crack, the second binary with classes ok, dent"):
        compare(first, replace(first, classes=("ok", "dent")))
    with pytest.raises(DataError, match="different label"):
        compare(first, replace(first, scored=replace(first.scored, truth=~first.scored.truth)))


def test_images_that_were_replaced_between_the_runs_are_excluded() -> None:
    first, second = records(100, 0.9, 1), records(100, 0.9, 2)
    found = compare(first, second, replaced=first.paths[:40])
    assert (found.images, found.excluded) == (60, 80)
    with pytest.raises(DataError, match="every image that both tested was replaced between them"):
        compare(first, second, replaced=first.paths)


def test_images_that_one_run_knows_to_be_dependent_are_so_in_both_orders() -> None:
    first, second = records(200, 0.7, 1), records(200, 0.95, 2)
    grouped = replace(second, scored=replace(second.scored, groups=np.arange(200) // 50))
    one, other = compare(first, grouped), compare(grouped, first)
    change, reverse = one.differences["accuracy"], other.differences["accuracy"]
    assert one.p_value is None and (change.low, change.high) == pytest.approx((-reverse.high, -reverse.low))
    alone = compare(first, second).differences["accuracy"]
    assert change.high - change.low > 1.1 * (alone.high - alone.low)


def test_images_are_dependent_if_they_are_in_either_run() -> None:
    first, second = records(12, 0.7, 1), records(12, 0.95, 2)
    pairs, triples = np.arange(12) // 2, np.arange(12) // 3
    of_both = [
        replace(run, scored=replace(run.scored, groups=groups)) for run, groups in ((first, pairs), (second, triples))
    ]
    joined = replace(first, scored=replace(first.scored, groups=np.arange(12) // 6))
    assert compare(*of_both).differences == compare(joined, second).differences


def test_nothing_follows_from_images_that_are_all_of_one_group() -> None:
    first, second = (
        replace(run, scored=replace(run.scored, groups=np.zeros(200, int)))
        for run in (records(200, 0.7, 1), records(200, 0.95, 2))
    )
    found = compare(first, second)
    assert found.verdict.startswith("No significant difference on 200 images")
    assert not any(found.better_in(metric) for metric in found.differences)
    one = of_predictions([0], []), of_predictions([0], [0])
    assert compare(*one).better_in("loss") is None


def test_a_difference_on_few_images_is_not_significant() -> None:
    """The bootstrap of three images that all differ has no spread."""
    found = compare(records(3, 0.0, 1), records(3, 1.0, 2))
    assert found.p_value == pytest.approx(0.25)
    assert found.verdict.startswith("No significant difference on 3 images: +100.0 points accuracy")


def test_in_other_fractions_too_a_few_images_that_differ_are_no_difference() -> None:
    found = compare(*(of_predictions(range(200), wrong) for wrong in ([0, 1, 2, 3, 4], [])))
    assert all(found.differences[name].low > 0 for name in ("balanced_accuracy", "macro_f1"))
    assert found.better_in("balanced_accuracy") is None and found.better_in("macro_f1") is None
    assert found.better_in("loss") == "second"


def test_a_gain_in_a_rare_class_counts_though_as_many_images_of_another_one_are_lost() -> None:
    labels = [int(row < 40) for row in range(400)]
    found = compare(of_predictions(labels, range(15)), of_predictions(labels, range(100, 115)))
    assert found.p_value == 1.0 and found.better_in("accuracy") is None
    assert found.better_in("balanced_accuracy") == "second"
    assert compare(of_predictions(labels, []), of_predictions(labels, range(15))).better_in("accuracy") == "first"
