from collections.abc import Sequence

import pytest

from thaw.studio.folder_labels import labels_of_folders


def labels(paths: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    return list(labels_of_folders(dict(enumerate(paths)), known).values())


def test_the_uppermost_folders_of_which_there_are_several_are_the_classes() -> None:
    assert labels(["a/1", "a/2", "b/1", "b/2"]) == ["a", "a", "b", "b"]
    assert labels(["all/a/x/1", "all/a/y/2", "all/b/1", "all/b/2"]) == ["a", "a", "b", "b"]


def test_splits_are_no_classes() -> None:
    assert labels(["train/a/1", "train/b/2", "test/a/1", "test/b/2"]) == ["a", "b", "a", "b"]


def test_one_folder_is_a_class_only_if_it_is_known() -> None:
    assert labels(["a/1", "a/2"]) == []
    assert labels(["a/1", "a/2"], ["a", "b"]) == ["a", "a"]


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["1", "2"],
        ["1", "a/1", "b/1"],
        ["a/1", "b/1", "c/1"],
        ["ab/1", "AB/1", "AB/2", "ab/2"],
        ["a|b/1", "a|b/2", "c/1", "c/2"],
        [f"{number % 101:03}/{number}" for number in range(1000)],
    ],
)
def test_other_folders_do_not_look_like_classes(paths: list[str]) -> None:
    assert labels(paths) == []
