from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.manifest import SCHEMA, SPLITS, Manifest, new_table
from thaw.errors import DataError
from thaw.recipe import Task

CLASSES = ("ok", "scratch", "dent")


def manifest(labels: list[list[str]], task: Task = "multiclass", **columns: Any) -> Manifest:
    table = new_table([f"{row}.png" for row in range(len(labels))], labels)
    return Manifest(table, CLASSES, task, Path("/images")).with_columns(columns)


def decoded(task: Task = "multiclass") -> Manifest:
    """Six rows of which the last but one is unreadable and the last has no split."""
    labels = [["ok"], ["ok"], ["scratch"], ["dent"], ["dent"], ["ok"]]
    if task == "multilabel":
        labels = [[], ["ok"], ["scratch", "ok"], ["dent", "scratch"], ["dent"], ["ok"]]
    status = ["ok", "ok", "ok", "ok", "error", "ok"]
    reason = [None, None, None, None, "the file is empty", None]
    return manifest(labels, task, split=["train", "train", "train", "val", "val", None], status=status, reason=reason)


def test_a_new_table_has_only_the_given_columns() -> None:
    table = new_table(["a.png", "b.png"], [["ok"], []], ["train", None], [None, "part 1"])
    assert table.schema == SCHEMA
    assert table.select(["path", "labels", "split", "group"]).to_pylist() == [
        {"path": "a.png", "labels": ["ok"], "split": "train", "group": None},
        {"path": "b.png", "labels": [], "split": None, "group": "part 1"},
    ]
    unknown = [name for name in SCHEMA.names if table.column(name).null_count == 2]
    assert unknown == ["sha256", "bytes", "width", "height", "mode", "status", "reason"]


def test_a_table_may_be_empty() -> None:
    empty = manifest([])
    assert len(empty) == 0
    assert empty.targets().shape == (0,)
    assert manifest([], "multilabel").targets().shape == (0, 3)
    assert empty.counts() == {name: dict.fromkeys(SPLITS, 0) for name in CLASSES}


def test_paths_are_relative_to_the_root_unless_absolute() -> None:
    rows = Manifest(new_table(["below/a.png", "/elsewhere/b.png"], [["ok"]] * 2), CLASSES, "multiclass", Path("/root"))
    assert [rows.file(row) for row in range(2)] == [Path("/root/below/a.png"), Path("/elsewhere/b.png")]


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_targets_are_class_indices(task: Task) -> None:
    targets = manifest([["dent"], ["ok"], ["scratch"], ["ok"]], task).targets()
    assert targets.dtype == np.int64
    assert targets.tolist() == [2, 0, 1, 0]


def test_multilabel_targets_are_zeros_and_ones() -> None:
    targets = manifest([["dent", "ok"], [], ["scratch"], ["ok", "scratch", "dent"]], "multilabel").targets()
    assert targets.dtype == np.float32
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]


@given(
    labels=st.lists(st.lists(st.sampled_from(CLASSES), unique=True), min_size=1, max_size=20), cut=st.integers(0, 20)
)
def test_targets_do_not_depend_on_how_the_table_is_chunked(labels: list[list[str]], cut: int) -> None:
    whole = manifest(labels, "multilabel")
    parts = Manifest(
        pa.concat_tables([whole.table.slice(0, cut), whole.table.slice(cut)]), CLASSES, "multilabel", whole.root
    )
    expected = [[float(name in names) for name in CLASSES] for names in labels]
    assert whole.targets().tolist() == parts.targets().tolist() == expected
    rest = Manifest(whole.table.slice(cut), CLASSES, "multilabel", whole.root)
    assert rest.targets().tolist() == expected[cut:]


def test_a_split_contains_its_readable_rows() -> None:
    rows = decoded()
    assert [rows.indices(split).tolist() for split in SPLITS] == [[0, 1, 2], [3], []]
    assert rows.indices("train").dtype == np.int64


def test_before_decoding_no_row_is_in_a_split() -> None:
    rows = manifest([["ok"], ["dent"]], split=["train", "val"])
    assert [len(rows.indices(split)) for split in SPLITS] == [0, 0, 0]


def test_readable_images_are_counted_by_class_and_split() -> None:
    assert decoded().counts() == {
        "ok": {"train": 2, "val": 0, "test": 0},
        "scratch": {"train": 1, "val": 0, "test": 0},
        "dent": {"train": 0, "val": 1, "test": 0},
    }


def test_an_image_with_several_labels_counts_for_each() -> None:
    assert decoded("multilabel").counts() == {
        "ok": {"train": 2, "val": 0, "test": 0},
        "scratch": {"train": 1, "val": 1, "test": 0},
        "dent": {"train": 0, "val": 1, "test": 0},
    }


def test_a_class_missing_from_a_split_keeps_the_numbers_of_the_others() -> None:
    rows = decoded()
    assert rows.targets()[rows.indices("train")].tolist() == [0, 0, 1]
    assert rows.targets()[rows.indices("val")].tolist() == [2]


def test_unreadable_images_are_listed_with_their_reasons() -> None:
    assert decoded().errors() == [("4.png", "the file is empty")]
    assert manifest([["ok"]]).errors() == []


def test_replacing_columns_does_not_change_the_original() -> None:
    rows = manifest([["ok"], ["dent"]])
    changed = rows.with_columns({"split": ["train", "val"], "width": pa.chunked_array([[3, 4]], pa.int64())})
    assert changed.table.schema == SCHEMA
    assert (changed.column("split"), changed.column("width")) == (["train", "val"], [3, 4])
    assert changed.column("labels") == rows.column("labels")
    assert rows.column("split") == [None, None]


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_writing_and_reading_round_trips(tmp_path: Path, task: Task) -> None:
    rows = decoded(task)
    written = Manifest(rows.table, rows.classes, task, Path("/größe/ä"), ((".txt", 2), ("hidden", 1)))
    written.write(tmp_path / "manifest.parquet")
    read = Manifest.read(tmp_path / "manifest.parquet")
    assert read.table.equals(written.table)
    assert read.table.schema == SCHEMA
    assert (read.classes, read.task, read.root, read.ignored) == (CLASSES, task, Path("/größe/ä"), written.ignored)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.parquet"]


def test_writing_again_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "manifest.parquet"
    decoded().write(file)
    manifest([["dent"]]).write(file)
    assert Manifest.read(file).column("labels") == [["dent"]]


def test_a_missing_manifest_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.parquet: cannot be read as a manifest"):
        Manifest.read(tmp_path / "missing.parquet")


@pytest.mark.parametrize("facts", [None, {b"other": b"{}"}, {b"thaw": b"{}"}, {b"thaw": b"not JSON"}, {b"thaw": b"[]"}])
def test_a_parquet_file_of_something_else_is_a_data_error(tmp_path: Path, facts: dict[bytes, bytes] | None) -> None:
    file = tmp_path / "other.parquet"
    pq.write_table(decoded().table.replace_schema_metadata(facts), file)
    with pytest.raises(DataError, match=r"other\.parquet: cannot be read as a manifest"):
        Manifest.read(file)


def test_a_manifest_without_a_column_is_a_data_error(tmp_path: Path) -> None:
    file = tmp_path / "manifest.parquet"
    decoded().write(file)
    pq.write_table(pq.read_table(file).drop_columns(["labels"]), file)
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        Manifest.read(file)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_manifest_is_a_data_error(tmp_path: Path, kept: float) -> None:
    file = tmp_path / "manifest.parquet"
    decoded().write(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        Manifest.read(file)
