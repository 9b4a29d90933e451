import json
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.unprivileged import unprivileged
from thaw.data.dataset import Dataset, RequestedTask
from thaw.errors import DataError, ThawError
from thaw.recipe import FolderSettings


def make(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(file)
    return root


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def facts(dataset: Dataset) -> list[tuple[str, list[str], str | None]]:
    """(path, labels, split) of each row."""
    columns = (dataset.manifest.column(name) for name in ("path", "labels", "split"))
    return list(zip(*columns, strict=True))


def test_class_folders_are_a_data_set(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, "b/1.png", "a/2.png", "c/3.png"))
    assert (dataset.classes, dataset.task, len(dataset)) == (("a", "b", "c"), "multiclass", 3)
    assert facts(dataset) == [("a/2.png", ["a"], None), ("b/1.png", ["b"], None), ("c/3.png", ["c"], None)]
    assert all(dataset.manifest.file(row).is_file() for row in range(3))


def test_split_folders_are_a_data_set(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "test/b/4.png")
    dataset = Dataset.open(tmp_path)
    assert (dataset.classes, dataset.task) == (("a", "b"), "binary")
    assert [split for _, _, split in facts(dataset)] == ["test", "train", "train", "val"]


@pytest.mark.parametrize("name", ["labels.csv", "labels.CSV"])
def test_a_csv_is_a_data_set(tmp_path: Path, name: str) -> None:
    make(tmp_path, "1.png", "2.png")
    dataset = Dataset.open(table(tmp_path, "path,label,split,group\n1.png,b,train,g\n2.png,a,val,h\n", name))
    assert facts(dataset) == [("1.png", ["b"], "train"), ("2.png", ["a"], "val")]
    assert dataset.manifest.column("group") == ["g", "h"]
    assert dataset.manifest.file(0) == tmp_path.resolve() / "1.png"


def test_a_parquet_table_is_a_data_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["1.png", "2.png", "3.png"], "label": [2, 10, 1]}), tmp_path / "labels.parquet")
    dataset = Dataset.open(tmp_path / "labels.parquet")
    assert dataset.classes == ("1", "2", "10")
    assert dataset.manifest.targets().tolist() == [1, 2, 0]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_with_hub_metadata_is_a_data_set(tmp_path: Path, kind: str) -> None:
    for split, label in [("train", "a"), ("train", "b"), ("test", "a")]:
        make(tmp_path, f"{split}/{label}.png")
        row = {"file_name": f"{label}.png", "label": label}
        file = tmp_path / split / f"metadata.{kind}"
        new = json.dumps(row) if kind == "jsonl" else ",".join(row.values())
        head = "" if kind == "jsonl" else "file_name,label\n"
        file.write_text((file.read_text() if file.exists() else head) + new + "\n")
    dataset = Dataset.open(tmp_path)
    assert dataset.classes == ("a", "b")
    assert sorted(facts(dataset)) == [
        ("test/a.png", ["a"], "test"),
        ("train/a.png", ["a"], "train"),
        ("train/b.png", ["b"], "train"),
    ]


def test_hub_metadata_takes_precedence_over_class_folders(tmp_path: Path) -> None:
    make(tmp_path, "x/1.png", "y/2.png")
    table(tmp_path, "file_name,label\nx/1.png,good\ny/2.png,bad\n", "metadata.csv")
    assert Dataset.open(tmp_path).classes == ("bad", "good")


def test_a_folder_whose_name_ends_like_a_table_is_a_folder(tmp_path: Path) -> None:
    assert Dataset.open(make(tmp_path / "data.csv", "a/1.png", "b/2.png")).classes == ("a", "b")


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, *(f"class{number}/x.png" for number in (1, 2, 10, 21, 3))))
    assert dataset.classes == ("class1", "class2", "class3", "class10", "class21")
    assert dataset.manifest.targets().tolist() == [0, 1, 2, 3, 4]


def test_a_class_missing_from_a_split_never_renumbers_the_others(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", "val/c/4.png", "test/b/5.png")
    manifest = Dataset.open(tmp_path).manifest
    numbers = dict(zip(manifest.column("path"), manifest.targets().tolist(), strict=True))
    assert numbers == {"train/a/1.png": 0, "train/b/2.png": 1, "train/c/3.png": 2, "val/c/4.png": 2, "test/b/5.png": 1}


def test_a_class_that_is_only_in_a_later_split_gets_an_index(tmp_path: Path) -> None:
    make(tmp_path, "train/b/1.png", "train/c/2.png", "test/a/3.png")
    assert Dataset.open(tmp_path).classes == ("a", "b", "c")


def test_given_classes_fix_the_order_and_others_come_last(tmp_path: Path) -> None:
    root = make(tmp_path, "a/1.png", "b/2.png", "c10/3.png", "c9/4.png")
    dataset = Dataset.open(root, classes=("b", "unseen", "a"))
    assert dataset.classes == ("b", "unseen", "a", "c9", "c10")
    assert dict(zip(dataset.manifest.column("path"), dataset.manifest.targets().tolist(), strict=True)) == {
        "a/1.png": 2,
        "b/2.png": 0,
        "c9/4.png": 3,
        "c10/3.png": 4,
    }


def test_given_classes_need_not_all_be_there(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, "b/1.png"), classes=("a", "b"))
    assert (dataset.classes, dataset.task) == (("a", "b"), "binary")
    assert dataset.manifest.targets().tolist() == [1]


@pytest.mark.parametrize(
    ("asked", "labels", "task"),
    [
        ("auto", ["a", "b"], "binary"),
        ("auto", ["a", "b", "c"], "multiclass"),
        ("auto", ["a", "b|a"], "multilabel"),
        ("auto", ["a|b", ""], "multilabel"),
        ("multiclass", ["a", "b"], "multiclass"),
        ("multilabel", ["a", "b"], "multilabel"),
        ("multilabel", ["a", ""], "multilabel"),
        ("binary", ["a", "b"], "binary"),
    ],
)
def test_the_task_is_the_requested_one_or_follows_from_the_labels(
    tmp_path: Path, asked: RequestedTask, labels: list[str], task: str
) -> None:
    rows = "".join(f"{row}.png,{cell}\n" for row, cell in enumerate(labels))
    assert Dataset.open(table(tmp_path, f"path,label\n{rows}"), asked).task == task


def test_rows_of_several_labels_have_a_target_for_each(tmp_path: Path) -> None:
    dataset = Dataset.open(table(tmp_path, "path,labels\n1.png,scratch|dent\n2.png,\n3.png,dent\n"))
    assert (dataset.task, dataset.classes) == ("multilabel", ("dent", "scratch"))
    assert dataset.manifest.targets().tolist() == [[1, 1], [0, 0], [1, 0]]


def test_a_row_with_several_labels_is_named_for_a_single_label_task(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label\n1.png,a\n2.png,a|b\n")
    with pytest.raises(DataError, match=r"labels\.csv: row 3 \(2\.png\) has 2 labels; set task to multilabel"):
        Dataset.open(file, "multiclass")


def test_a_row_without_a_label_is_named(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label\n1.png,a\n2.png,b\n3.png,\n")
    with pytest.raises(DataError, match=r"labels\.csv: row 4 \(3\.png\) has no label; label it or remove the row"):
        Dataset.open(file)


def test_a_row_of_hub_metadata_is_named_with_its_file(tmp_path: Path) -> None:
    table(tmp_path / "train", "file_name,label\n1.png,a\n2.png,\n", "metadata.csv")
    with pytest.raises(DataError, match=r"metadata\.csv row 3 \(train/2\.png\) has no label"):
        Dataset.open(tmp_path)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only one class, ok; a classifier needs at least two"):
        Dataset.open(make(tmp_path, "ok/1.png", "ok/2.png"))


def test_a_single_folder_next_to_a_table_suggests_the_table(tmp_path: Path) -> None:
    make(tmp_path, "images/1.png")
    table(tmp_path, "path,label\nimages/1.png,a\n")
    with pytest.raises(DataError, match=r"only one class, images.*labels\.csv.*instead"):
        Dataset.open(tmp_path)


def test_one_class_is_enough_for_multilabel(tmp_path: Path) -> None:
    dataset = Dataset.open(table(tmp_path, "path,label\n1.png,dent\n2.png,\n"), "multilabel")
    assert dataset.manifest.targets().tolist() == [[1], [0]]


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image has a label"):
        Dataset.open(table(tmp_path, "path,label\n1.png,\n2.png,\n"), "multilabel")


def test_three_classes_are_too_many_for_a_binary_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 classes \(a, b, c\), but task binary needs two"):
        Dataset.open(make(tmp_path, "a/1.png", "b/2.png", "c/3.png"), "binary")


def test_a_missing_folder_or_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images: no such folder"):
        Dataset.open(tmp_path / "images")
    with pytest.raises(DataError, match=r"labels\.csv: no such file"):
        Dataset.open(tmp_path / "labels.csv")


@pytest.mark.parametrize("name", ["labels.xlsx", "images.zip", "labels.ndjson", "photo.png"])
def test_another_file_is_refused_with_what_is_supported(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"not a table of labelled images; supported are a folder of images, \.csv"):
        Dataset.open(table(tmp_path, "", name))


def test_a_tsv_is_a_data_set(tmp_path: Path) -> None:
    assert Dataset.open(table(tmp_path, "path\tlabel\n1.png\tb\n2.png\ta\n", "labels.tsv")).classes == ("a", "b")


def test_labels_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    rows = "".join(f"{form}.png,{unicodedata.normalize(form, 'fissuré')}\n" for form in ("NFC", "NFD"))
    assert Dataset.open(table(tmp_path, f"path,label\n{rows}3.png,ok \n")).classes == ("fissuré", "ok")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in this folder"):
        Dataset.open(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'label'"):
        Dataset.open(table(tmp_path, "path,kind\n1.png,a\n"))


def test_the_files_of_a_table_are_not_checked_yet(tmp_path: Path) -> None:
    assert len(Dataset.open(table(tmp_path, "path,label\nmissing.png,a\nabsent.png,b\n"))) == 2


def test_a_relative_path_still_works_after_changing_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "images/a/1.png", "images/b/2.png")
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.open("images")
    monkeypatch.chdir("/")
    assert dataset.manifest.file(0).is_file()


def test_ignored_files_are_kept_with_the_data_set(tmp_path: Path) -> None:
    table(make(tmp_path, "a/1.png", "b/2.png"), "note", "a.txt")
    assert Dataset.open(tmp_path).manifest.ignored == ((".txt", 1),)


def test_a_data_set_has_a_readable_representation(tmp_path: Path) -> None:
    text = repr(Dataset.open(make(tmp_path, "a/1.png", "b/2.png")))
    assert "2 images" in text and "2 classes" in text and "binary" in text


def test_both_unicode_forms_of_a_class_folder_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "fissuré") for form in ("NFC", "NFD"))
    make(tmp_path, f"train/{composed}/1.png", "train/ok/2.png", f"test/{decomposed}/3.png", "test/ok /4.png")
    dataset = Dataset.open(tmp_path)
    assert dataset.classes == (composed, "ok")
    assert facts(dataset)[0] == (f"test/{decomposed}/3.png", [composed], "test")
    assert [note.rpartition(": ")[2] for note in dataset.notes] == [
        f"the label {composed!r} is read as class {composed}",
        "the label 'ok ' is read as class ok",
    ]
    assert dataset.as_task("binary").notes == dataset.notes


def test_class_folders_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "train/Crack/1.png", "train/ok/2.png", "val/crack/3.png")
    if len(list((tmp_path / "train").iterdir())) == 1:
        pytest.skip("this file system ignores case")
    with pytest.raises(DataError, match=r"val/crack/3\.png: the classes crack and Crack differ only in case"):
        Dataset.open(tmp_path)


def test_labels_of_a_table_follow_the_same_rules(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3 .*: the classes crack and Crack differ only in case .*row 2"):
        Dataset.open(table(tmp_path, "path,label\n1.png,Crack\n2.png,crack\n"))
    with pytest.raises(DataError, match=r"2\.png.*'deep\\ncrack' contains a control character"):
        Dataset.open(table(tmp_path, 'path,label\n1.png,ok\n2.png,"deep\ncrack"\n'))


def test_settings_of_folders_do_not_apply_to_tables(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label\n1.png,ok\n2.png,crack\n")
    with pytest.raises(DataError, match="layout and exclude do not apply"):
        Dataset.open(file, folders=FolderSettings(layout="classes"))


def test_a_data_set_that_is_a_link_to_itself_is_reported(tmp_path: Path) -> None:
    for name in ("loop", "loop.csv"):
        (tmp_path / name).symlink_to(name)
        with pytest.raises(DataError, match="leads to itself"):
            Dataset.open(tmp_path / name)


def test_one_class_names_the_folder_further_down(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only one class, images; .*pass .*/images instead"):
        Dataset.open(make(tmp_path, "images/ok/1.png", "images/crack/2.png"))


@pytest.mark.parametrize("opening", [Dataset.open, Dataset.from_folder, Dataset.from_table])
def test_a_path_that_the_system_refuses_is_reported(opening: Callable[[Path | str], Dataset], tmp_path: Path) -> None:
    with pytest.raises(ThawError, match="null character"):
        opening("a\0b")
    closed = tmp_path / "closed"
    table(closed, "path,label\n")
    closed.chmod(0)
    try:
        for place in (closed, closed / "labels.csv"):
            said = unprivileged(partial(opening, place))
            assert said.startswith(str(closed)) and "Errno" not in said
    finally:
        closed.chmod(0o700)
