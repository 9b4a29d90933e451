from dataclasses import replace

import numpy as np
import pytest

from thaw.classifier.decision import Decision
from thaw.errors import DataError
from thaw.evaluation.compare import compare
from thaw.evaluation.metrics import Scored
from thaw.evaluation.records import Records

CLASSES = ("ok", "crack")


def records(count: int, right: float, seed: int, classes: tuple[str, ...] = CLASSES) -> Records:
    """A run that is right about a share of the images, on the same truth for every seed."""
    labels = np.random.default_rng(0).integers(2, size=count)
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(count) < right, labels, 1 - labels)
    probabilities = np.where(said[:, None] == np.arange(2), 0.8, 0.2)
    truth = labels[:, None] == np.arange(2)
    scored = Scored("binary", probabilities, truth, Decision().labels(probabilities, "binary"))
    paths, nobody = tuple(f"{index}.png" for index in range(count)), np.zeros(count, bool)
    return Records(
        paths, classes, scored, ((),) * count, ambiguous=nobody, out_of_distribution=nobody, distance=np.zeros(count)
    )


def test_a_better_run_is_told_from_a_worse_one() -> None:
    found = compare(records(400, 0.8, 1), records(400, 0.95, 2))
    assert found.accuracy.low > 0 and found.p_value is not None and found.p_value < 0.001
    assert "the second is better" in found.verdict and found.loss.value < 0


def test_equal_runs_are_not_told_apart_and_false_alarms_are_rare() -> None:
    alarms = sum(
        not (found.accuracy.low <= 0 <= found.accuracy.high)
        for seed in range(40)
        for found in [compare(records(200, 0.9, seed + 10), records(200, 0.9, seed + 500))]
    )
    assert alarms <= 6
    same = compare(records(50, 0.9, 1), records(50, 0.9, 1))
    assert same.p_value == 1.0 and same.accuracy.value == 0.0 and "no difference" in same.verdict


def test_only_images_that_both_were_tested_on_count() -> None:
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
    assert (found.images, found.left_out, found.only_first, found.only_second) == (50, 50, 0, 0)


def test_classes_in_another_order_are_the_same_classes() -> None:
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
    assert compare(first, flipped).accuracy.value == 0.0


def test_runs_over_other_images_or_classes_or_labels_are_refused() -> None:
    first = records(20, 0.9, 1)
    with pytest.raises(DataError, match="no image was tested by both"):
        compare(first, replace(first, paths=tuple(f"other-{path}" for path in first.paths)))
    with pytest.raises(DataError, match="one tells ok, crack apart"):
        compare(first, replace(first, classes=("ok", "dent")))
    with pytest.raises(DataError, match="another label"):
        compare(first, replace(first, scored=replace(first.scored, truth=~first.scored.truth)))
