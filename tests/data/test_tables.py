import json
import ntpath
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thaw.data.layouts import Rows
from thaw.data.tables import read_metadata, read_table
from thaw.errors import DataError


def csv_file(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(text.encode(encoding))
    return file


def parquet_file(folder: Path, name: str = "labels.parquet", **columns: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def json_lines(folder: Path, *rows: Any, name: str = "metadata.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder / name


def columns(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    """The rows as tuples of some columns."""
    return list(zip(*(rows.table.column(name).to_pylist() for name in names), strict=True))


def test_a_csv_of_paths_and_labels_is_read_in_its_order(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "path,label\nz.png,ok\nbelow/a.png,crack\n")
    rows = read_table(file)
    assert columns(rows, "path", "labels", "split", "group") == [
        ("z.png", ["ok"], None, None),
        ("below/a.png", ["crack"], None, None),
    ]
    assert (rows.root, rows.source) == (tmp_path, file)
    assert list(rows.row_names) == ["row 2", "row 3"]


def test_a_table_may_define_splits_and_groups(tmp_path: Path) -> None:
    text = (
        "path,label,split,group\na.png,ok,train,part 1\nb.png,ok,Validation,part 2\nc.png,ok,TEST,\nd.png,ok,valid,7\n"
    )
    assert columns(read_table(csv_file(tmp_path, text)), "split", "group") == [
        ("train", "part 1"),
        ("val", "part 2"),
        ("test", None),
        ("val", "7"),
    ]


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    text = "path,label,split,group\na.png,ok,train,g\nb.png,crack,val,h\n"
    by_csv = read_table(csv_file(tmp_path, text))
    by_parquet = read_table(
        parquet_file(tmp_path, path=["a.png", "b.png"], label=["ok", "crack"], split=["train", "val"], group=["g", "h"])
    )
    assert by_parquet.table.equals(by_csv.table)
    assert list(by_parquet.row_names) == ["row 1", "row 2"]


def test_json_lines_are_read_like_csv(tmp_path: Path) -> None:
    by_csv = read_table(csv_file(tmp_path, "file_name,label\na.png,ok\nb.png,crack\n"))
    by_json = read_table(
        json_lines(tmp_path, {"file_name": "a.png", "label": "ok"}, {"file_name": "b.png", "label": "crack"})
    )
    assert by_json.table.equals(by_csv.table)
    assert list(by_json.row_names) == ["line 1", "line 2"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_files_of_spreadsheets_are_read(tmp_path: Path, delimiter: str, encoding: str, newline: str) -> None:
    lines = ["Path, Label ", "größe/a.png,ok", "", '"with, comma.png",crack']
    text = newline.join(
        [line.replace(",", delimiter) for line in lines[:3]] + [lines[3].replace('",', f'"{delimiter}')]
    )
    rows = read_table(csv_file(tmp_path, text, encoding=encoding))
    assert columns(rows, "path", "labels") == [("größe/a.png", ["ok"]), ("with, comma.png", ["crack"])]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("scratch|dent", ["scratch", "dent"]),
        (" scratch | dent ", ["scratch", "dent"]),
        ("dent|dent", ["dent"]),
        ("dent|", ["dent"]),
        ("", []),
        ("|", []),
        ("scratch and dent", ["scratch and dent"]),
    ],
)
def test_several_labels_in_a_cell_are_separated_by_bars(tmp_path: Path, cell: str, labels: list[str]) -> None:
    assert columns(read_table(csv_file(tmp_path, f"path,labels\na.png,{cell}\n")), "labels") == [(labels,)]


def test_lists_of_labels_are_used_as_they_are(tmp_path: Path) -> None:
    expected = [(["a, b", "c"],), ([],), ([],)]
    table = parquet_file(tmp_path, path=["1.png", "2.png", "3.png"], labels=[["a, b", "c"], [], None])
    assert columns(read_table(table), "labels") == expected
    lines = json_lines(
        tmp_path, {"path": "1.png", "labels": ["a, b", "c"]}, {"path": "2.png", "labels": []}, {"path": "3.png"}
    )
    assert columns(read_table(lines), "labels") == expected


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1], [["0"], ["1"]]),
        ([1.0, None], [["1"], []]),
        ([float("nan"), 2.0], [[], ["2"]]),
        ([0.5, 1.0], [["0.5"], ["1"]]),
        ([True, False], [["True"], ["False"]]),
    ],
)
def test_labels_that_are_numbers_become_names(tmp_path: Path, values: list[Any], labels: list[list[str]]) -> None:
    rows = read_table(parquet_file(tmp_path, path=["a.png", "b.png"], label=values))
    assert [names for (names,) in columns(rows, "labels")] == labels


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    rows = read_table(csv_file(tmp_path, ",id,Label,Remark,path,fold,Unnamed: 0\n0,1,ok,fine,a.png,3,0\n"))
    assert columns(rows, "path", "labels") == [("a.png", ["ok"])]
    assert rows.notes == ("labels.csv: columns id, remark, fold not used",)


def test_an_absolute_path_stays_absolute(tmp_path: Path) -> None:
    rows = read_table(csv_file(tmp_path, f"path,label\n{tmp_path}/elsewhere/a.png,ok\n"))
    assert columns(rows, "path") == [((tmp_path / "elsewhere/a.png").as_posix(),)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,defect", "no column 'label', only path, defect"),
        ("TRAIN,daisy", "no column 'path', only train, daisy; the first line must name the columns"),
        ("path,class", r"no column 'label'.*did you mean 'class'\? rename it to 'label'"),
        ("image,label", r"no column 'path'.*did you mean 'image'\?"),
        ("pth,label", r"no column 'path'.*did you mean 'pth'\?"),
        ("path,file_name,label", "has the columns path and file_name; keep only one"),
        ("path,label,labels", "has the columns label and labels; keep only one"),
    ],
)
def test_a_missing_or_duplicate_column_is_named(tmp_path: Path, header: str, message: str) -> None:
    cells = ",".join("x" for _ in header.split(","))
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        read_table(csv_file(tmp_path, f"{header}\n{cells}\n"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("path,label\na.png,ok\n,crack\n", "row 3: the path is empty"),
        ("path,label\na.png,ok\n  ,crack\n", "row 3: the path is empty"),
        ("path,label\na.png,ok\nb.png\n", "row 3 has 1 cells, but the header has 2"),
        ("path,label\na.png,ok\nb.png,ok,crack\n", "row 3 has 3 cells, but the header has 2"),
        ("path,label,split\na.png,ok,train\nb.png,ok,third\n", "row 3: unknown split 'third'; known are train, val"),
        ("path,label,split\na.png,ok,train\nb.png,ok,\n", "row 3: has no split, although other rows have one"),
        ("path,label\na.png,ok\n\n\nb.png\n", "row 5 has 1 cells"),
    ],
)
def test_a_bad_row_is_named_by_its_line_in_the_file(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        read_table(csv_file(tmp_path, body))


def test_a_bad_row_of_other_tables_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: the path is empty"):
        read_table(parquet_file(tmp_path, path=["a.png", None], label=["ok", "ok"]))
    with pytest.raises(DataError, match="line 2: the path is empty"):
        read_table(json_lines(tmp_path, {"path": "a.png", "label": "ok"}, {"label": "ok"}))
    with pytest.raises(DataError, match="line 2 is not an object"):
        read_table(json_lines(tmp_path, {"path": "a.png", "label": "ok"}, ["b.png", "ok"]))


def test_conflicting_labels_of_an_image_are_refused(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "path,label\na.png,ok\nb.png,ok\n./a.png,crack\n")
    with pytest.raises(
        DataError, match=r"row 2 and row 4: a\.png has conflicting labels, ok and crack; keep one row per image"
    ):
        read_table(file)


def test_an_image_listed_twice_with_the_same_labels_is_accepted(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "path,labels\na.png,dent|scratch\na.png,scratch|dent\n")
    assert len(read_table(file).table) == 2


def test_an_empty_split_column_defines_no_split(tmp_path: Path) -> None:
    rows = read_table(csv_file(tmp_path, "path,label,split\na.png,ok,\nb.png,ok,\n"))
    assert columns(rows, "split") == [(None,), (None,)]


@pytest.mark.parametrize("text", ["path,label\n", "path,label\n\n\n", "", "\n"])
def test_a_table_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: the table has no rows"):
        read_table(csv_file(tmp_path, text))


def test_other_tables_without_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_table(parquet_file(tmp_path, path=pa.array([], pa.string()), label=pa.array([], pa.string())))
    with pytest.raises(DataError, match="no rows"):
        read_table(json_lines(tmp_path))


def test_a_missing_or_unsupported_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv: no such file"):
        read_table(tmp_path / "missing.csv")
    with pytest.raises(DataError, match=r"labels\.xlsx: not a table .*\.csv, \.tsv, \.parquet, \.jsonl, .*; save the"):
        read_table(csv_file(tmp_path, "", "labels.xlsx"))


def test_a_damaged_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read as \.parquet"):
        read_table(csv_file(tmp_path, "path,label\n", "labels.parquet"))
    with pytest.raises(DataError, match=r"cannot be read as \.jsonl"):
        read_table(csv_file(tmp_path, '{"path": "a.png"\n', "labels.jsonl"))
    with pytest.raises(DataError, match=r"cannot be read as \.csv"):
        read_table(csv_file(tmp_path, 'path,label\n"a.png"x,ok\n'))


def test_text_that_is_not_utf8_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8 text; save it as"):
        read_table(csv_file(tmp_path, "path,label\na.png,größe\n", encoding="latin-1"))


def test_a_folder_without_metadata_has_no_rows(tmp_path: Path) -> None:
    csv_file(tmp_path, "path,label\na.png,ok\n")
    assert read_metadata(tmp_path) is None


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_metadata_file_labels_the_images_of_its_folder(tmp_path: Path, name: str) -> None:
    if name.endswith("csv"):
        csv_file(tmp_path, "file_name,label\na.png,ok\nbelow/b.png,crack\n", name)
    elif name.endswith("jsonl"):
        json_lines(tmp_path, {"file_name": "a.png", "label": "ok"}, {"file_name": "below/b.png", "label": "crack"})
    else:
        parquet_file(tmp_path, name, file_name=["a.png", "below/b.png"], label=["ok", "crack"])
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert columns(rows, "path", "labels", "split") == [("a.png", ["ok"], None), ("below/b.png", ["crack"], None)]
    assert (rows.root, rows.source) == (tmp_path, tmp_path)


def test_metadata_files_in_split_folders_give_the_split_and_paths_below_the_root(tmp_path: Path) -> None:
    csv_file(tmp_path / "train", "file_name,label\na.png,ok\nbelow/b.png,crack\n", "metadata.csv")
    json_lines(tmp_path / "validation", {"file_name": "a.png", "label": "ok"})
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert columns(rows, "path", "labels", "split") == [
        ("train/a.png", ["ok"], "train"),
        ("train/below/b.png", ["crack"], "train"),
        ("validation/a.png", ["ok"], "val"),
    ]
    assert list(rows.row_names) == ["metadata.csv row 2", "metadata.csv row 3", "metadata.jsonl line 1"]


def test_metadata_in_the_root_uses_the_first_folder_of_each_path_as_the_split(tmp_path: Path) -> None:
    csv_file(tmp_path, "file_name,label\ntrain/a.png,ok\nValid/b.png,ok\n", "metadata.csv")
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert columns(rows, "split") == [("train",), ("val",)]
    csv_file(tmp_path, "file_name,label\ntrain/a.png,ok\nelsewhere/b.png,ok\n", "metadata.csv")
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert columns(rows, "split") == [(None,), (None,)]


def test_metadata_with_an_image_outside_of_the_folders_of_the_splits_is_refused(tmp_path: Path) -> None:
    csv_file(tmp_path, "file_name,label\ntrain/a.png,ok\ntest/b.png,ok\nstray.png,ok\n", "metadata.csv")
    with pytest.raises(
        DataError, match=r"metadata\.csv: row 4: stray\.png is outside of the folders of the splits, test"
    ):
        read_metadata(tmp_path)


def test_a_folder_called_eval_is_the_test_split_of_metadata_where_another_is_for_validation(tmp_path: Path) -> None:
    names = ("train", "val", "eval")
    for name in names:
        csv_file(tmp_path / "below" / name, "file_name,label\na.png,ok\n", "metadata.csv")
    lines = "\n".join(f"{name}/a.png,ok" for name in names)
    csv_file(tmp_path / "above", f"file_name,label\n{lines}\n", "metadata.csv")
    for root, told in (("below", "eval as test"), ("above", "train as train, val as val, eval as test")):
        rows = read_metadata(tmp_path / root)
        assert rows is not None
        assert set(columns(rows, "path", "split")) == {
            ("train/a.png", "train"),
            ("val/a.png", "val"),
            ("eval/a.png", "test"),
        }
        assert rows.notes == (f"folders read as splits: {told}",)


def test_a_split_column_of_metadata_takes_precedence_over_folders(tmp_path: Path) -> None:
    csv_file(tmp_path, "file_name,label,split\ntrain/a.png,ok,test\ntest/b.png,ok,train\n", "metadata.csv")
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert columns(rows, "split") == [("test",), ("train",)]


@pytest.mark.parametrize("column", ["split", "subset"])
def test_eval_in_a_column_is_the_test_split_where_another_metadata_file_names_validation(
    tmp_path: Path, column: str
) -> None:
    for folder, split in (("train", "train"), ("valid", "val"), ("test", "eval")):
        csv_file(tmp_path / folder, f"file_name,label,{column}\na.png,ok,{split}\n", "metadata.csv")
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert set(columns(rows, "path", "split")) == {
        ("train/a.png", "train"),
        ("valid/a.png", "val"),
        ("test/a.png", "test"),
    }
    assert f"metadata.csv: values of column {column} read as splits: eval as test" in rows.notes


def test_two_metadata_files_for_the_same_images_are_refused(tmp_path: Path) -> None:
    csv_file(tmp_path / "train", "file_name,label\na.png,ok\n", "metadata.csv")
    json_lines(tmp_path / "train", {"file_name": "a.png", "label": "crack"})
    with pytest.raises(DataError, match=r"several metadata files .*train/metadata\.csv, train/metadata\.jsonl"):
        read_metadata(tmp_path)


def test_a_bad_metadata_file_is_named_with_its_folder(tmp_path: Path) -> None:
    csv_file(tmp_path / "test", "file_name,caption\na.png,nice\n", "metadata.csv")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'test' / 'metadata.csv'}: has no column 'label'")):
        read_metadata(tmp_path)


def make_images(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_images_that_a_table_does_not_list_are_counted(tmp_path: Path) -> None:
    make_images(tmp_path, "a/1.png", "a/2.png", "a/10.png", "b/1.png", "c/1.png")
    rows = read_table(csv_file(tmp_path, "path,label\na/1.png,ok\n./b/1.png,crack\n"))
    assert rows.notes == (
        "labels.csv: 2 of 4 images in the same folders are not listed and not used, for example a/2.png",
    )
    rows = read_table(csv_file(tmp_path, f"path,label\na/1.png,ok\na/2.png,ok\n{tmp_path}/b/../a/10.png,ok\n"))
    assert rows.notes == ()


def test_an_image_on_another_drive_that_a_table_does_not_list_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "D"
    make_images(images, "1.png", "2.png")
    file = csv_file(tmp_path / "C", f"path,label\n{images}/1.png,ok\n")
    # Windows has no path from one drive to another.
    monkeypatch.setattr("os.path.relpath", lambda *_: ntpath.relpath("D:/2.png", "C:/"))
    (note,) = read_table(file).notes
    assert note.endswith(f"are not listed and not used, for example {images}/2.png")


def test_images_that_metadata_does_not_list_are_counted(tmp_path: Path) -> None:
    make_images(tmp_path, "a/1.png", "a/2.png", "b/1.png", "a/note.txt")
    csv_file(tmp_path, "file_name,label\na/1.png,ok\n", "metadata.csv")
    rows = read_metadata(tmp_path)
    assert rows is not None
    assert rows.notes == (
        f"{tmp_path.name}: 2 of 3 images in the folder are not listed and not used, for example a/2.png",
    )


def test_notes_on_metadata_in_split_folders_are_told_once(tmp_path: Path) -> None:
    for split in ("train", "test"):
        csv_file(tmp_path / split, "file_name,label,lens,patient_id\na.png,ok,35,1\n", "metadata.csv")
    rows = read_metadata(tmp_path)
    assert rows is not None and len(rows.notes) == 2
    assert columns(rows, "split", "group") == [("test", "1"), ("train", "1")]


def test_conflicting_labels_are_found_for_any_spelling_of_a_path(tmp_path: Path) -> None:
    make_images(tmp_path, "images/a.png")
    for other in ("images/../images/a.png", f"{tmp_path}/images/a.png", "Images/A.png", "images\\a.png"):
        file = csv_file(tmp_path, f"path,label\nimages/a.png,ok\n{other},crack\n")
        with pytest.raises(DataError, match=r"row 2 and row 3: .* has conflicting labels, ok and crack"):
            read_table(file)


def test_on_windows_folders_in_another_case_are_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("OK", "ok"):
        make_images(tmp_path, f"{folder}/a.png", f"{folder}/B.png")
    conflicting = csv_file(tmp_path, "path,label\nOK/a.png,ok\nok/a.png,crack\n")
    if os.name == "posix":
        assert len(read_table(conflicting).table) == 2
    monkeypatch.setattr("os.path.normcase", lambda path: os.fspath(path).lower())
    with pytest.raises(DataError, match=r"row 2 and row 3: ok/a\.png has conflicting labels, ok and crack"):
        read_table(conflicting)
    (note,) = read_table(csv_file(tmp_path, "path,label\nOK/a.png,ok\nok/a.png,ok\n")).notes
    assert "1 of 2 images in the same folders" in note and note.endswith("/B.png")


def test_one_and_one_point_zero_are_one_label(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "path,label\na.png,1\nb.png,1.0\nc.png,0.0\n")
    assert columns(read_table(file), "labels") == [(["1"],), (["1"],), (["0"],)]


def test_classes_of_a_classifier_keep_their_spelling(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "path,label\na.png,1\nb.png,1.0\nc.png,2\n")
    assert columns(read_table(file, classes=("1.0", "ok")), "labels") == [(["1.0"],), (["1.0"],), (["2"],)]


@pytest.mark.parametrize("joined", ["crack,deep", "deep crack", "crack + deep"])
def test_a_class_made_of_other_classes_is_remarked(tmp_path: Path, joined: str) -> None:
    file = csv_file(tmp_path, f'path,label\na.png,crack\nb.png,deep\nc.png,"{joined}"\n')
    assert f"{joined!r} is one class, although" in read_table(file).notes[0]


def test_a_missing_value_as_a_class_is_remarked(tmp_path: Path) -> None:
    rows = read_table(csv_file(tmp_path, "path,label\na.png,ok\nb.png,nan\n"))
    assert rows.notes == ("labels.csv: nan is a class; leave the cell empty where it means that there is no label",)


def test_metadata_about_something_else_is_named(tmp_path: Path) -> None:
    csv_file(tmp_path, "camera,lens\nA,35\n", "metadata.csv")
    with pytest.raises(DataError, match=r"has no column 'path'.*if this file does not label the images, rename it"):
        read_metadata(tmp_path)


def test_metadata_of_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_metadata(tmp_path / "missing")
