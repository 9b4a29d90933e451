import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thaw.data.table_files import RawTable, read_cells
from thaw.errors import DataError

WANTED = frozenset({"path", "label"})


def text_file(folder: Path, text: str, name: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / name


def cells(table: RawTable) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in table.columns.items()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first_line", ["sep={}\r\n", "SEP={}\n", '"sep={}"\r\n'])
def test_the_delimiter_that_excel_writes_first_is_obeyed(tmp_path: Path, delimiter: str, first_line: str) -> None:
    lines = [first_line.format(delimiter), f"path{delimiter}label\r\n", f"a.png{delimiter}ok\r\n"]
    table = read_cells(text_file(tmp_path, "".join(lines), "labels.csv"), WANTED)
    assert cells(table) == {"path": ["a.png"], "label": ["ok"]}
    assert table.row_names == ["row 3"]


def test_tabs_separate_the_cells_of_a_tsv_file(tmp_path: Path) -> None:
    table = read_cells(text_file(tmp_path, "path\tlabel\na, b.png\tok\n", "labels.tsv"), WANTED)
    assert cells(table) == {"path": ["a, b.png"], "label": ["ok"]}


def test_names_of_columns_are_read_in_any_case_in_every_format(tmp_path: Path) -> None:
    pq.write_table(pa.table({"Path": ["a.png"], " LABEL": ["ok"], "id": [1]}), tmp_path / "labels.parquet")
    for file in (
        tmp_path / "labels.parquet",
        text_file(tmp_path, "Path, LABEL,id\na.png,ok,1\n", "labels.csv"),
        text_file(tmp_path, json.dumps({"Path": "a.png", " LABEL": "ok", "id": 1}), "labels.jsonl"),
    ):
        table = read_cells(file, WANTED)
        assert cells(table) == {"path": ["a.png"], "label": ["ok"]}
        assert list(table.names) == ["path", "label", "id"]


def test_a_wanted_column_that_is_there_twice_is_refused_in_every_format(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png"], "label": ["a"], "Label": ["b"]}), tmp_path / "labels.parquet")
    for file in (
        tmp_path / "labels.parquet",
        text_file(tmp_path, "path,label, Label\na.png,a,b\n", "labels.csv"),
        text_file(tmp_path, '{"path": "a.png", "label": "a"}\n{"path": "b.png", "Label": "b"}\n', "labels.jsonl"),
    ):
        with pytest.raises(DataError, match="has the columns label and Label; keep only one"):
            read_cells(file, WANTED)


def test_another_column_may_be_there_twice(tmp_path: Path) -> None:
    table = read_cells(text_file(tmp_path, "path,label,note,Note\na.png,a,1,2\n", "labels.csv"), WANTED)
    assert cells(table) == {"path": ["a.png"], "label": ["a"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "labels.jsonl",
            '{"path": "a.png", "label": "ok"}\n\n{"path": "b.png", "la',
            r"\.jsonl: line 3, character 19: Unt",
        ),
        ("labels.jsonl", '[{"path": "a.png", "label": "ok"}]', r"line 1 is not an object such as"),
        ("labels.jsonl", "\n" + "[" * 100_000, r"\.jsonl: line 2: its objects are nested too deeply$"),
        ("labels.jsonl", '[\n{"path": "a.png"},\n]', r"line 1, character 3: Expecting"),
        ("labels.csv", 'path,label\na.png,ok\n"b.png"x,ok\n', r"\.csv: row 3: "),
        ("labels.csv", 'sep=;\npath;label\na.png;ok\n"b.png;ok\n', r"\.csv: row \d: unexpected end"),
    ],
)
def test_the_damaged_line_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cells(text_file(tmp_path, text, name), WANTED)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("labels.xlsx", "save the sheet as `CSV UTF-8`"),
        ("images.zip", "unpack it, and pass the folder or table in it"),
        ("labels.csv.gz", "unpack it"),
        ("labels.ndjson", "name it .jsonl"),
        ("labels.txt", "name it .csv"),
        ("photo.png", r"\.parquet, \.jsonl, and \.json or \.xml of annotation tools$"),
    ],
)
def test_another_file_is_refused_with_what_is_supported(tmp_path: Path, name: str, advice: str) -> None:
    with pytest.raises(DataError, match=rf"not a table .*supported are a folder of images, \.csv, \.tsv.*{advice}"):
        read_cells(text_file(tmp_path, "", name), WANTED)
