from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from thaw.data import stratified
from thaw.data.stratified import strata_of, stratified_group_folds


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Classes and groups of some images, and a number of folds that they can be divided into."""
    count = draw(st.integers(4, 120))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes = random.integers(0, draw(st.integers(1, 5)), count)
    groups = random.integers(0, draw(st.sampled_from([count // 2, 10 * count])), count)
    most = min(len(np.unique(groups)), int(np.bincount(classes).max()))
    return classes, groups, draw(st.integers(min(2, most), min(6, most)))


@given(images(), st.integers(0, 5))
def test_the_folds_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray, int], seed: int) -> None:
    classes, groups, folds = case
    if folds < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(classes, classes, groups))
    found = stratified_group_folds(classes, groups, folds, seed)
    for (train, test), (expected_train, expected_test) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(test, expected_test)
        np.testing.assert_array_equal(train, expected_train)


@pytest.mark.parametrize("are_many", [False, True])
@pytest.mark.parametrize("folds", [2, 5])
def test_groups_stay_together_and_classes_are_spread(
    folds: int, are_many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if are_many:
        monkeypatch.setattr(stratified, "_MANY_COUNTS", 0)
    classes, groups = np.repeat(np.arange(4), 50), np.arange(200) // 2
    found = stratified_group_folds(classes, groups, folds, seed=1)
    assert sorted(np.concatenate([test for _, test in found])) == list(range(200))
    for train, test in found:
        assert not set(groups[train]) & set(groups[test])
        assert max(np.bincount(classes[test])) - min(np.bincount(classes[test])) <= 2


def test_a_rare_label_is_spread_over_the_folds_also_where_all_its_images_have_a_common_one_first() -> None:
    targets = np.zeros((60, 3), np.float32)
    targets[:40, 0] = targets[36:40, 2] = 1
    targets[40:50, 1] = 1
    strata = strata_of(targets)
    assert np.bincount(strata).tolist() == [10, 36, 10, 4]
    found = stratified_group_folds(strata, np.arange(60), 5, seed=0)
    assert sorted(int(targets[test, 2].sum()) for _, test in found) == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("are_grouped", [False, True])
def test_many_images_of_many_classes_are_divided_evenly(are_grouped: bool) -> None:
    classes = np.random.default_rng(0).permutation(np.arange(20_000) % 2_000)
    groups = np.arange(20_000) // 2 if are_grouped else np.arange(20_000)
    found = stratified_group_folds(classes, groups, 5, seed=0)
    for train, test in found:
        assert not set(groups[train]) & set(groups[test]) and abs(len(test) - 4_000) < 40
        assert np.bincount(classes[test], minlength=2_000).max() <= (5 if are_grouped else 2)
