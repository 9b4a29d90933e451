import json
from pathlib import Path

import pytest

from thaw.data.table_columns import KNOWN, Columns, columns_of
from thaw.data.table_files import read_cells
from thaw.errors import DataError


def found(folder: Path, header: str, *rows: str) -> Columns:
    """The columns of a table with some more columns than path and label."""
    file = folder / "labels.csv"
    lines = [f"path,label,{header}", *(f"{number}.png,ok,{cells}" for number, cells in enumerate(rows))]
    file.write_text("\n".join(lines), encoding="utf-8")
    return columns_of(read_cells(file, KNOWN))


@pytest.mark.parametrize(
    ("header", "cells", "splits", "taken"),
    [
        ("subset", ["Train", "val", "TEST"], ["train", "val", "test"], "column subset"),
        ("set", ["train", "valid", "valid"], ["train", "val", "val"], "column set"),
        ("is_valid", ["True", "False", "False"], ["val", "train", "train"], "column is_valid"),
        ("Is_Valid", ["1", "0", "0.0"], ["val", "train", "train"], "column is_valid"),
        ("is_valid,is_test", ["1,0", "0,1", "0,0"], ["val", "test", "train"], "columns is_valid, is_test"),
        ("is_valid", ["WAHR", "FALSCH", "falsch"], ["val", "train", "train"], "column is_valid"),
        ("is_train", ["yes", "no", "yes"], ["train", "test", "train"], "column is_train"),
        ("is_train,is_val", ["1,0", "0,1", "0,0"], ["train", "val", "test"], "columns is_val, is_train"),
    ],
)
def test_usual_names_of_a_split_are_taken_and_told(
    tmp_path: Path, header: str, cells: list[str], splits: list[str], taken: str
) -> None:
    columns = found(tmp_path, header, *cells)
    assert columns.splits == splits
    assert columns.notes == (f"{taken} defines the split",)


@pytest.mark.parametrize("column", ["split", "subset"])
def test_unusual_names_of_splits_are_told_and_evaluation_is_test_where_another_is_for_validation(
    tmp_path: Path, column: str
) -> None:
    columns = found(tmp_path, column, "Training", "val", "evaluation", "val")
    assert columns.splits == ["train", "val", "test", "val"]
    told = f"values of column {column} read as splits: Training as train, val as val, evaluation as test"
    assert columns.notes[-1] == told
    columns = found(tmp_path, column, "train", "eval")
    assert columns.splits == ["train", "val"]
    assert columns.notes[-1] == f"values of column {column} read as splits: train as train, eval as val"


@pytest.mark.parametrize("column", ["split", "subset"])
def test_blanks_around_names_of_splits_do_not_matter(tmp_path: Path, column: str) -> None:
    columns = found(tmp_path, column, " train", "val  ", "train")
    assert columns.splits == ["train", "val", "train"]
    assert not any("read as splits" in note for note in columns.notes)


def test_two_columns_may_define_the_same_split(tmp_path: Path) -> None:
    columns = found(tmp_path, "subset,is_valid", "train,0", "val,1")
    assert columns.splits == ["train", "val"]
    assert columns.notes == ("column subset defines the split", "column is_valid not used")


@pytest.mark.parametrize("cells", [("A", "B"), ("train", "B"), ("1", "2"), ("", "")])
def test_a_column_with_other_values_is_no_split(tmp_path: Path, cells: tuple[str, str]) -> None:
    columns = found(tmp_path, "set", *cells)
    assert columns.splits is None
    assert columns.notes == ("column set not used",)


def test_columns_with_the_proper_name_take_precedence(tmp_path: Path) -> None:
    columns = found(tmp_path, "split,is_valid,group,patient_id", "train,1,a,7", "test,0,b,7")
    assert (columns.splits, columns.groups) == (["train", "test"], ["a", "b"])
    assert columns.notes == ("columns is_valid, patient_id not used",)


@pytest.mark.parametrize("name", ["patient_id", "group_id", "Subject"])
def test_usual_names_of_a_group_are_taken_and_told(tmp_path: Path, name: str) -> None:
    columns, read_as = found(tmp_path, name, "7", "7.0", ""), name.lower()
    assert columns.groups == ["7", "7", None]
    assert columns.notes == (f"column {read_as} is the group: images with the same {read_as} stay in the same split",)


def test_an_empty_column_is_no_group(tmp_path: Path) -> None:
    assert found(tmp_path, "patient_id,part_id", ",a", ",b").groups == ["a", "b"]


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("patient_id,part_id", "1,2", "has the columns patient_id and part_id; rename the one .* to 'group'"),
        ("subset,is_valid", "train,1", "subset and is_valid define different splits; rename the right column"),
        ("is_valid,is_test", "1,1", "row 2: is_valid and is_test contradict each other"),
        ("split,Split", "train,train", "has the columns split and Split; keep only one"),
        ("group, GROUP", "a,a", "has the columns group and GROUP; keep only one"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(tmp_path: Path, header: str, cells: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        found(tmp_path, header, cells)


@pytest.mark.parametrize(("name", "cell"), [("split", "val"), ("subset", "train"), ("is_valid", "True")])
def test_a_row_without_a_split_is_named(tmp_path: Path, name: str, cell: str) -> None:
    with pytest.raises(DataError, match=f"row 3: has no {name}, although other rows have one"):
        found(tmp_path, name, cell, "")


def test_columns_that_may_be_something_else_need_not_be_text(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    row = {"path": "a.png", "label": "ok", "set": ["train"], "is_valid": {"a": 1}}
    file.write_text(json.dumps(row), encoding="utf-8")
    columns = columns_of(read_cells(file, KNOWN))
    assert columns.splits is None and columns.notes == ("columns set, is_valid not used",)
