from dataclasses import replace

import numpy as np

from thaw.inspection.duplicates import DuplicatePair
from thaw.inspection.image_quality import QualityFlag
from thaw.studio.features import ImageFeatures, Snapshot
from thaw.studio.images import Images
from thaw.studio.marks import EXCLUDED, Mark
from thaw.studio.piles import Pile, find_piles

CLASSES = ("ok", "scratch", "stain")


def piles(features: ImageFeatures, marks: list[Mark]) -> dict[str, Pile]:
    return {pile.name: pile for pile in find_piles(Snapshot(features, marks, CLASSES))}


def with_pairs(features: ImageFeatures, *pairs: tuple[int, int]) -> ImageFeatures:
    return replace(features, duplicates=tuple(DuplicatePair(*pair, 0.99, False) for pair in pairs))


def given(listed: Images) -> list[Mark]:
    return [Mark(label) for label in listed.labels]


def test_connected_images_are_one_group_of_near_duplicates(features: ImageFeatures, listed: Images) -> None:
    found = piles(with_pairs(features, (0, 3), (3, 7), (20, 21)), given(listed))["duplicates"]
    assert found.rows == (0, 3, 7, 20, 21) and found.groups == (0, 0, 0, 1, 1)


def test_near_duplicates_with_different_labels_conflict_until_one_is_fixed(
    features: ImageFeatures, listed: Images
) -> None:
    pairs, marks = with_pairs(features, (0, 13), (1, 2)), given(listed)
    assert piles(pairs, marks)["conflicting"].rows == (0, 13)
    marks[13] = Mark("ok")
    assert "conflicting" not in piles(pairs, marks)


def test_near_duplicates_in_two_given_splits_are_a_leak(features: ImageFeatures, listed: Images) -> None:
    splits = ["train"] * 13 + ["test"] * 12 + [None] * 11
    divided = replace(features, manifest=features.manifest.with_columns({"split": splits}))
    found = piles(with_pairs(divided, (0, 13), (1, 2), (14, 30)), given(listed))
    assert found["leaks"].rows == (0, 13) and found["duplicates"].groups == (0, 0, 1, 1, 2, 2)


def test_images_of_doubtful_quality_are_in_one_pile_with_all_that_is_wrong_with_them(
    features: ImageFeatures, listed: Images
) -> None:
    flags = tuple(
        QualityFlag(row, issue, 1.0, 9.0, "") for row, issue in ((3, "dark"), (3, "odd size"), (7, "blurred"))
    )
    marks = given(listed)
    found = piles(replace(features, quality=flags), marks)["quality"]
    assert found.rows == (3, 7) and found.notes == {3: "dark, odd size", 7: "blurred"}
    marks[3] = EXCLUDED
    assert piles(replace(features, quality=flags), marks)["quality"].rows == (7,)


def test_excluded_images_are_in_no_pile(features: ImageFeatures, listed: Images) -> None:
    marks = given(listed)
    marks[0] = EXCLUDED
    assert "duplicates" not in piles(with_pairs(features, (0, 13)), marks)


def test_a_wrong_label_is_found_with_the_right_one_suggested(features: ImageFeatures, listed: Images) -> None:
    # Classes that a linear head separates without an error.
    values = np.zeros_like(features.values)
    for row in range(36):
        values[row, 50 * (row // 12) : 50 * (row // 12 + 1)] = 1
    clear, marks = replace(features, values=values), given(listed)
    marks[5] = Mark("stain")
    found = piles(clear, marks)["label-errors"]
    assert found.rows[0] == 5 and found.suggested[5] == "ok" and "ok" in found.notes[5]


def test_without_labels_only_duplicates_are_found(features: ImageFeatures) -> None:
    assert list(piles(replace(with_pairs(features, (0, 13)), quality=()), [Mark()] * 36)) == ["duplicates"]
