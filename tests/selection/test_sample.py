"""The sample on which settings are compared, and its folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.manifest import Manifest, new_table
from thaw.inspection.linear_probe import FOLDS, stratified_folds
from thaw.selection.sample import MANY_CLASSES, MIN_PER_CLASS, Sample, draw_sample, stratified_choice


def sample(targets: np.ndarray, units: np.ndarray | None = None) -> Sample:
    """A sample of all images, each a unit of its own by default."""
    rows = np.arange(len(targets))
    return Sample(rows, targets, rows if units is None else units)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=6), st.integers(20, 300))
def test_a_choice_keeps_rare_classes_and_the_proportions_of_the_others(sizes: list[int], most: int) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    chosen = stratified_choice(strata, most, np.random.default_rng(0))
    counts = np.bincount(strata[chosen], minlength=len(sizes))
    assert (np.diff(chosen) > 0).all()
    for size, count in zip(sizes, counts, strict=True):
        least = max(FOLDS, min(MIN_PER_CLASS, 2 * most // len(sizes)))
        assert count == min(size, max(least, round(size * most / len(strata))))


@pytest.mark.parametrize(("classes", "images"), [(50, 1000), (100, 2000), (200, 2000), (1000, 5000), (4000, 8000)])
def test_many_classes_do_not_make_a_sample_large(classes: int, images: int) -> None:
    strata = np.arange(classes).repeat(30)
    assert len(stratified_choice(strata, 1000, np.random.default_rng(0))) == images


@pytest.mark.parametrize(("classes", "each"), [(10, 100), (MANY_CLASSES, 10), (MANY_CLASSES, 15)])
def test_every_fold_of_up_to_200_classes_is_tested(classes: int, each: int) -> None:
    found = sample(np.arange(classes).repeat(each))
    np.testing.assert_array_equal(found.folds(), stratified_folds(found.targets, found.units))
    assert found.most_folds == FOLDS and not found.why_few_folds and not found.untested


@pytest.mark.parametrize(("classes", "tested"), [(400, 3), (500, 2), (600, 1)])
def test_heads_of_many_classes_have_no_more_logits_than_those_of_200_in_all_folds(classes: int, tested: int) -> None:
    found = sample(np.tile(np.arange(classes), 5))
    folds = found.folds()
    assert folds is not None and {*folds} == {-1, *range(tested)}
    assert (np.bincount(found.targets[folds >= 0]) == tested).all() and not found.untested
    verb = "is" if tested == 1 else "are"
    assert found.why_few_folds == f"{tested} of 5 folds {verb} tested, because there are {classes} classes"


@given(st.integers(0, 1000))
def test_units_are_never_divided_and_every_image_is_tested_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, units = np.arange(80) % 3, rng.integers(30, size=80)
    found = sample(targets, units)
    folds = found.folds()
    if folds is not None:
        assert all(len(np.unique(folds[units == unit])) == 1 for unit in np.unique(units))
        assert (folds >= 0).all()


def test_a_class_in_one_group_only_is_not_tested_across_groups() -> None:
    targets = np.array([0] * 20 + [1] * 20 + [2] * 10)
    groups = np.array([*(np.arange(20) % 5), *(np.arange(20) % 5), *([9] * 10)])
    folds = sample(targets).folds_across(groups)
    assert folds is not None
    assert (folds[targets == 2] == -1).all() and (folds[targets != 2] >= 0).all()
    for group in np.unique(groups[targets != 2]):
        assert len(np.unique(folds[(groups == group) & (targets != 2)])) == 1


def test_images_that_must_not_be_divided_are_in_the_group_of_most_of_them() -> None:
    units, groups = np.array([7, 7, 7, 3, 3, 5]), np.array([1, 2, 2, 0, 0, 1])
    assert sample(np.zeros(6, int), units).undivided(groups).tolist() == [2, 2, 2, 0, 0, 1]


def test_too_few_groups_or_images_of_all_classes_but_one_give_no_folds() -> None:
    assert sample(np.array([0] * 10 + [1, 2])).folds() is None
    assert sample(np.zeros(10, int)).folds() is None
    assert sample(np.arange(20) % 2).folds_across(np.arange(20) % 2) is None
    assert sample(np.arange(20) % 4).folds_across(np.arange(20) % 4) is None


def test_a_class_with_one_image_is_not_tested_and_leaves_the_folds_of_the_others_as_they_are() -> None:
    targets = np.array([0] * 20 + [1] * 20 + [2] * 3 + [3])
    folds = sample(targets).folds()
    assert folds is not None and {*folds[:40]} == {0, 1, 2, 3, 4}
    assert len({*folds[40:43]}) == 3 and (folds[40:43] >= 0).all() and folds[43] == -1


def test_a_class_whose_images_must_not_be_divided_is_not_tested() -> None:
    targets, units = np.array([0] * 20 + [1] * 20 + [2] * 3), np.array([*range(40), 50, 50, 50])
    folds = sample(targets, units).folds()
    assert folds is not None and (folds[:40] >= 0).all() and {*folds[40:]} == {-1}


def test_several_labels_are_stratified_by_the_first() -> None:
    targets = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    assert sample(targets).strata.tolist() == [0, 1, 2, 1]


def test_images_that_belong_together_through_one_that_is_not_in_the_sample_are_one_unit() -> None:
    # Bursts of three, of which each image is a near-duplicate of the next only.
    bursts = 40
    images = 3 * bursts
    table = new_table(
        [f"{number}.png" for number in range(images)],
        [["ok" if number < images // 2 else "crack"] for number in range(images)],
        ["train"] * images,
        [None] * images,
    )
    facts = {"status": ["ok"] * images, "sha256": [f"{number:064x}" for number in range(images)]}
    manifest = Manifest(table, ("crack", "ok"), "multiclass", Path("/images")).with_columns(facts)
    pairs = tuple((number, number + 1) for number in range(images) if number % 3 < 2)
    found = draw_sample(manifest, pairs, 0, most=images // 2)
    assert len(found.rows) == images // 2
    burst_of = found.rows // 3
    assert all(len(np.unique(found.units[burst_of == burst])) == 1 for burst in np.unique(burst_of))
