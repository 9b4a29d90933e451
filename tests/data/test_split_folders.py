from pathlib import Path

import pytest

from thaw.data.split_folders import deeper_hint, split_folders
from thaw.data.split_names import spelling_note
from thaw.errors import DataError
from thaw.recipe import FolderSettings

ROOT = Path("images")
AUTO = FolderSettings()


def images(*folders: str) -> list[str]:
    return [f"{folder}/{number}.png" for folder in folders for number in range(2)]


def splits(*names: str, classes: tuple[str, ...] = ("crack", "ok")) -> list[str]:
    return images(*(f"{name}/{label}" for name in names for label in classes))


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training", "Testing", "test"),
        ("Training", "Test", "test"),
        ("train_set", "test_set", "test"),
        ("1_train", "2_test", "test"),
        ("train_images", "valid_images", "val"),
        ("train", "dev", "val"),
        ("train2017", "val2017", "val"),
        ("TrainData", "HoldOut", "test"),
        ("train", "eval", "val"),
    ],
)
def test_usual_spellings_of_splits_are_splits_and_it_is_said(train: str, other: str, split: str) -> None:
    found = split_folders(ROOT, splits(train, other), AUTO)
    assert found == {train: "train", other: split}
    assert spelling_note(found, "folders") == (f"folders read as splits: {train} as train, {other} as {split}",)


def test_the_documented_spellings_need_no_remark() -> None:
    assert spelling_note(split_folders(ROOT, splits("Train", "valid", "TEST"), AUTO), "folders") == ()


def test_an_evaluation_folder_is_the_test_split_where_another_is_for_validation() -> None:
    found = split_folders(ROOT, splits("train", "val", "eval"), AUTO)
    assert found == {"train": "train", "val": "val", "eval": "test"}


@pytest.mark.parametrize(
    "paths",
    [
        images("Training/2021", "Testing/2022"),
        images("test1/monday", "test2/monday", "test3/tuesday"),
        images("test/crack", "test/ok", "production/crack", "production/ok"),
        images("trainval/crack", "trainval/ok", "test/crack", "test/ok"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(paths: list[str]) -> None:
    with pytest.raises(DataError, match="may be splits or classes; add --layout splits or --layout classes"):
        split_folders(ROOT, paths, AUTO)
    assert split_folders(ROOT, paths, FolderSettings(layout="classes")) == {}


def test_a_class_called_train_is_trainable_when_the_layout_says_so() -> None:
    paths = images("bus", "car", "train")
    with pytest.raises(DataError, match=r"bus, car as well as train.*--layout classes.*--exclude bus,car"):
        split_folders(ROOT, paths, AUTO)
    assert split_folders(ROOT, paths, FolderSettings(layout="classes")) == {}


def test_folders_with_the_names_of_known_classes_are_classes() -> None:
    assert split_folders(ROOT, images("bus", "train"), AUTO, known=("bus", "car", "train")) == {}


def test_images_directly_in_split_folders_are_no_classes_unless_the_layout_says_so() -> None:
    with pytest.raises(DataError, match=r"the split folders have no class folders.*--layout classes"):
        split_folders(ROOT, images("train", "test1"), AUTO)
    assert split_folders(ROOT, images("train", "test1"), FolderSettings(layout="classes")) == {}


def test_the_layout_splits_refuses_other_folders() -> None:
    with pytest.raises(DataError, match="these are not: extra"):
        split_folders(ROOT, splits("train", "extra"), FolderSettings(layout="splits"))
    found = split_folders(ROOT, images("Training/2021", "Testing/2022"), FolderSettings(layout="splits"))
    assert found == {"Training": "train", "Testing": "test"}


@pytest.mark.parametrize("outer", ["images", "data/data"])
def test_splits_further_down_name_the_folder_to_pass(outer: str) -> None:
    with pytest.raises(DataError, match=rf"splits \(train, val\) are in {ROOT / outer}; pass that folder"):
        split_folders(ROOT, splits(f"{outer}/train", f"{outer}/val"), AUTO)


def test_splits_inside_of_class_folders_are_refused() -> None:
    paths = images("crack/train", "crack/test", "ok/train", "ok/test")
    with pytest.raises(DataError, match="crack contains the splits test, train, but split folders must be outermost"):
        split_folders(ROOT, paths, AUTO)


@pytest.mark.parametrize("below", ["line 1", "monday", "test"])
def test_other_folders_inside_of_class_folders_are_fine(below: str) -> None:
    assert split_folders(ROOT, images(f"crack/{below}", f"ok/{below}", "ok"), AUTO) == {}


def test_class_folders_further_down_are_hinted_at() -> None:
    assert deeper_hint(ROOT, images("a/b/crack", "a/b/ok")) == "; if crack, ok are the classes, pass images/a/b instead"
    assert deeper_hint(ROOT, images("crack", "ok")) == ""
    assert deeper_hint(ROOT, images("crack")) == ""
