import pytest

from thaw.data.split_names import SPLIT_WORDS, is_plain, split_of, splits_of


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "Training",
        "TRAIN",
        "train_set",
        "trainset",
        "TrainImages",
        "images_train",
        "1_train",
        "01-Train",
        "train2017",
        "train (1)",
        "Training Set",
        "trains",
        "train.1",
        "traindata",
        "split_train",
    ],
)
def test_spellings_of_train(name: str) -> None:
    assert split_of(name) == "train"


@pytest.mark.parametrize("name", ["Valid", "validation_data", "val2017", "dev", "DEV-set", "eval_images", "Evaluation"])
def test_spellings_of_val(name: str) -> None:
    assert split_of(name) == "val"


@pytest.mark.parametrize("name", ["Testing", "test1", "2_test", "tests", "TESTSET", "holdout", "hold_out", "HoldOut"])
def test_spellings_of_test(name: str) -> None:
    assert split_of(name) == "test"


@pytest.mark.parametrize(
    "name",
    [
        "pretest",
        "testcase",
        "training material",
        "train_val",
        "trainval",
        "training ok",
        "ok",
        "",
        "123",
        "set",
        "Prüfung",
        "étest",
        "test_é",
        "contest",
        "latest",
        "devices",
        "evaluated",
        "control",
        "trainer",
        "test tubes",
        "photo of a train",
    ],
)
def test_other_names_are_no_splits(name: str) -> None:
    assert split_of(name) is None


def test_evaluation_is_the_test_split_where_another_name_is_for_validation() -> None:
    assert splits_of(["train", "eval", "ok"]) == {"train": "train", "eval": "val"}
    assert splits_of(["train", "Evaluation", "dev"]) == {"train": "train", "Evaluation": "test", "dev": "val"}


def test_plain_names_are_the_documented_ones() -> None:
    assert all(is_plain(name) for name in ("train", "VAL", "valid", "Validation", "test"))
    assert not any(is_plain(name) for name in ("Training", "train_set", "dev", "tests"))
    assert {split_of(word) for word in SPLIT_WORDS} == {"train", "val", "test"}
