"""Before and after, class by class: what counts as a fall."""

import numpy as np
import pytest

from thaw.evaluation.class_changes import class_changes
from thaw.metrics import Scored, intervals, paired_difference, truth_of

CLASSES = ("ok", "crack", "dent")


def scored(predicted: list[int], targets: list[int], groups: list[int] | None = None) -> Scored:
    truth, labels = (truth_of(np.array(values), len(CLASSES)) for values in (targets, predicted))
    return Scored("multiclass", labels.astype(float), truth, labels, None if groups is None else np.array(groups))


def test_a_few_images_that_all_change_are_noise_and_more_are_not() -> None:
    for lost, falls in ((2, False), (4, False), (5, True)):
        targets = [1] * lost + [0] * 5
        before, after = scored(targets, targets), scored([2] * lost + [0] * 5, targets)
        ok, crack, every = class_changes(before, after, CLASSES[:2], 2)
        assert (ok.falls, crack.falls, every.falls) == (False, falls, falls)
        assert crack.before == 1 and crack.after == 0 and crack.images == lost


def test_what_is_gained_counts_against_what_is_lost() -> None:
    targets = [1] * 12
    before, after = scored([1] * 6 + [0] * 6, targets), scored([0] * 6 + [1] * 5 + [0], targets)
    crack, _ = class_changes(before, after, CLASSES, 3)
    assert not crack.falls and crack.difference is not None and crack.difference.value < 0


def test_images_of_one_group_fall_together() -> None:
    targets = [1] * 9
    before, after = scored(targets, targets), scored([0] * 9, targets, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    crack, _ = class_changes(before, after, CLASSES, 3)
    assert not crack.falls and crack.p_value == 0.125


def test_a_new_class_has_no_before_and_one_without_images_is_left_out() -> None:
    targets = [0, 2]
    changes = class_changes(scored([0, 0], targets), scored([0, 2], targets), CLASSES, 2)
    assert [(change.name, change.before, change.after) for change in changes] == [
        ("ok", 1.0, 1.0),
        ("dent", None, 1.0),
        ("", 0.5, 1.0),
    ]


def test_all_labels_of_the_same_images_are_compared_on_one_set_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, draw, drawn = np.random.default_rng(0), intervals._drawn, []
    truth, before, after = (rng.random((60, 8)) < 0.4 for _ in range(3))
    expected = [paired_difference(*columns) for columns in zip((before == truth).T, (after == truth).T, strict=True)]
    monkeypatch.setattr(intervals, "_drawn", lambda *args: drawn.append(1) or draw(*args))
    scores = [Scored("multilabel", labels.astype(float), truth, labels) for labels in (before, after)]
    *labels, _ = class_changes(*scores, [f"label {index}" for index in range(8)], 8)
    # No image has all labels right, before or after, so nothing is drawn for these.
    assert [change.difference for change in labels] == expected and len(drawn) == 1
