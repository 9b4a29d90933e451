import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from thaw.data.layouts import Rows, metadata_files, read_folder, table_hint
from thaw.data.walk import HIDDEN, Omitted, files_below, natural_key
from thaw.errors import DataError
from thaw.recipe import FolderSettings


def make(root: Path, *names: str) -> Path:
    """A tiny image for each name that Pillow can write, and a text file for each other."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in Image.registered_extensions():
            Image.new("RGB", (2, 2)).save(file)
        else:
            file.write_text("not an image")
    return root


def column(rows: Rows, name: str) -> list[object]:
    return rows.table.column(name).to_pylist()


def test_each_class_folder_gives_its_images_their_label(tmp_path: Path) -> None:
    rows = read_folder(make(tmp_path, "ok/a.png", "crack/b.jpg", "crack/c.bmp"))
    assert column(rows, "path") == ["crack/b.jpg", "crack/c.bmp", "ok/a.png"]
    assert column(rows, "labels") == [["crack"], ["crack"], ["ok"]]
    assert column(rows, "split") == [None] * 3
    assert (rows.root, rows.source) == (tmp_path, tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "JPG", "Png", "TIFF"])
def test_every_known_suffix_counts_as_an_image_in_any_case(tmp_path: Path, suffix: str) -> None:
    assert column(read_folder(make(tmp_path, f"ok/a.{suffix}")), "path") == [f"ok/a.{suffix}"]


def test_folders_below_a_class_folder_belong_to_that_class(tmp_path: Path) -> None:
    rows = read_folder(make(tmp_path, "ok/line 1/monday/a.png", "ok/b.png", "crack/line 2/c.png"))
    labels = dict(zip(column(rows, "path"), column(rows, "labels"), strict=True))
    assert labels == {"ok/line 1/monday/a.png": ["ok"], "ok/b.png": ["ok"], "crack/line 2/c.png": ["crack"]}


@pytest.mark.parametrize(
    ("folder", "split"),
    [("val", "val"), ("valid", "val"), ("validation", "val"), ("Val", "val"), ("test", "test"), ("TEST", "test")],
)
def test_folders_named_as_splits_give_the_split(tmp_path: Path, folder: str, split: str) -> None:
    rows = read_folder(make(tmp_path, "train/ok/a.png", "train/crack/b.png", f"{folder}/ok/below/c.png"))
    found = dict(
        zip(column(rows, "path"), zip(column(rows, "split"), column(rows, "labels"), strict=True), strict=True)
    )
    assert found == {
        "train/ok/a.png": ("train", ["ok"]),
        "train/crack/b.png": ("train", ["crack"]),
        f"{folder}/ok/below/c.png": (split, ["ok"]),
    }


def test_folders_named_val_or_test_among_class_folders_are_classes(tmp_path: Path) -> None:
    rows = read_folder(make(tmp_path, "test/a.png", "val/b.png", "production/c.png"))
    assert column(rows, "labels") == [["production"], ["test"], ["val"]]
    assert column(rows, "split") == [None] * 3


def test_images_are_in_natural_order(tmp_path: Path) -> None:
    rows = read_folder(make(tmp_path, *(f"class{number}/x{number}.png" for number in (10, 2, 1))))
    assert column(rows, "path") == ["class1/x1.png", "class2/x2.png", "class10/x10.png"]


def test_very_long_numbers_are_sorted_too() -> None:
    assert sorted(["a" + "9" * 5000, "a10", "a2"], key=natural_key) == ["a2", "a10", "a" + "9" * 5000]


@given(numbers=st.lists(st.integers(0, 10**30)))
def test_numbered_names_sort_by_their_number(numbers: list[int]) -> None:
    names = sorted((f"class {number} b" for number in numbers), key=natural_key)
    assert names == [f"class {number} b" for number in sorted(numbers)]


@given(names=st.lists(st.text(alphabet="a0129²٣é/ ", max_size=8), unique=True), data=st.data())
def test_the_natural_order_depends_only_on_the_names(names: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


def test_other_files_are_counted_by_suffix_and_hidden_ones_ignored(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "ok/notes.txt", "README", "crack/b.png", "crack/list.TXT")
    make(tmp_path, "ok/._a.png", ".cache/thumb/c.png")
    rows = read_folder(tmp_path)
    assert column(rows, "path") == ["crack/b.png", "ok/a.png"]
    assert dict(rows.ignored) == {".txt": 2, "": 1, "hidden": 2}


def test_a_folder_without_images_reports_what_it_contains(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.txt", "ok/b.txt", "ok/c.gif")
    with pytest.raises(DataError, match=r"no image in this folder, only 2 \.txt, 1 \.gif; supported are .*\.jpg"):
        read_folder(tmp_path)


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: no image") + ".*empty"):
        read_folder(tmp_path)


def test_an_address_without_a_bucket_is_reported() -> None:
    with pytest.raises(DataError, match="s3://: names no bucket or server; write s3://NAME/images"):
        read_folder(Path("s3://"))


def test_a_missing_folder_or_a_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: no such folder"):
        read_folder(tmp_path / "missing")
    make(tmp_path, "image.png")
    with pytest.raises(DataError, match=r"image\.png: is a file"):
        read_folder(tmp_path / "image.png")


def test_missing_class_folders_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match="has no class folders") as caught:
        read_folder(tmp_path)
    assert "instead" not in str(caught.value)


def test_missing_class_folders_next_to_a_table_suggest_the_table(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "labels.csv")
    with pytest.raises(DataError, match=r"no class folders.*labels\.csv.*instead"):
        read_folder(tmp_path)


def test_split_folders_without_class_folders_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "train/a.png", "test/b.png")
    with pytest.raises(DataError, match="split folders have no class folders"):
        read_folder(tmp_path)


def test_images_outside_the_class_folders_are_named(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "stray.png")
    with pytest.raises(DataError, match=r"1 image outside the class folders \(stray\.png\)"):
        read_folder(tmp_path)
    make(tmp_path, *(f"stray{number}.png" for number in range(4)))
    with pytest.raises(DataError, match=r"5 images outside .*stray0\.png.* and 2 more"):
        read_folder(tmp_path)


def test_images_outside_the_class_folders_of_a_split_are_named(tmp_path: Path) -> None:
    make(tmp_path, "train/ok/a.png", "val/stray.png")
    with pytest.raises(DataError, match=r"outside the class folders \(val/stray\.png\)"):
        read_folder(tmp_path)


def test_a_class_folder_next_to_split_folders_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "train/ok/a.png", "test/ok/b.png", "extra/c.png")
    with pytest.raises(DataError, match=r"extra as well as .*train.*all folders must be splits"):
        read_folder(tmp_path)


def test_a_link_to_a_parent_folder_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "crack/b.png")
    (tmp_path / "ok" / "again").symlink_to(tmp_path / "ok", target_is_directory=True)
    assert column(read_folder(tmp_path), "path") == ["crack/b.png", "ok/a.png"]


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.png", "root/ok/b.png")
    (tmp_path / "root" / "crack").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert column(read_folder(tmp_path / "root"), "labels") == [["crack"], ["ok"]]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png")
    try:
        (tmp_path / "ok" / "a.png").rename(tmp_path / "ok" / "caf\udce9.png")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(DataError, match="not valid UTF-8; rename it") as caught:
        read_folder(tmp_path)
    str(caught.value).encode("utf-8")


def test_all_files_under_a_folder_are_listed_in_natural_order_and_hidden_ones_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "x10.png", "x9.png", "below/y.jpg", "note.txt", ".hidden.png", "below/.more/z.png")
    omitted = Omitted()
    assert list(files_below(tmp_path, omitted)) == ["below/y.jpg", "note.txt", "x9.png", "x10.png"]
    assert omitted.files == {HIDDEN: 2}
    with pytest.raises(DataError, match="no such folder"):
        files_below(tmp_path / "missing", omitted)


_NAMES = st.text(alphabet="a-01.²٣é", min_size=1, max_size=3).filter(lambda name: not name.startswith("."))


@given(paths=st.sets(st.lists(_NAMES, min_size=1, max_size=3).map(lambda names: "/".join((*names, "x1.png")))))
def test_walking_folders_gives_the_natural_order_of_whole_paths(paths: set[str]) -> None:
    with TemporaryDirectory() as place:
        for path in paths:
            (Path(place) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(place) / path).touch()
        found = list(files_below(Path(place), Omitted()))
    assert found == sorted(paths, key=_by_pieces)


def _by_pieces(path: str) -> tuple[list[tuple[int, str]], str]:
    """The natural order spelled out: text and numbers alternate, and numbers compare by digit count, then by digits."""
    pieces = re.split(r"(\d+)", path)
    bare = [piece.lstrip("0") if index % 2 else piece for index, piece in enumerate(pieces)]
    return [(len(piece) if index % 2 else 0, piece) for index, piece in enumerate(bare)], path


def test_folders_that_differ_only_in_leading_zeros_are_interleaved(tmp_path: Path) -> None:
    make(tmp_path, "1/b.png", "01/a.png", "01/c.png", "2/a.png")
    assert list(files_below(tmp_path, Omitted())) == ["01/a.png", "1/b.png", "01/c.png", "2/a.png"]


def test_a_table_is_suggested_only_if_there_is_one(tmp_path: Path) -> None:
    assert table_hint(make(tmp_path, "ok/a.png")) == ""
    assert table_hint(tmp_path / "missing") == ""
    assert "labels.parquet" in table_hint(make(tmp_path, "labels.parquet"))


def test_metadata_files_are_found_in_the_folder_or_in_its_splits(tmp_path: Path) -> None:
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    make(whole, "metadata.jsonl", "train/metadata.csv")
    make(divided, "train/metadata.csv", "validation/metadata.csv", "other/metadata.csv")
    assert metadata_files(whole) == [(whole / "metadata.jsonl", None)]
    assert metadata_files(divided) == [
        (divided / "train/metadata.csv", "train"),
        (divided / "validation/metadata.csv", "val"),
    ]
    assert metadata_files(make(tmp_path / "none", "ok/a.png")) == []


def test_a_class_folder_without_a_usable_image_stops_the_command_and_can_be_left_out(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "crack/b.png", "scratch/c.gif", "scratch/d.gif")
    (tmp_path / "stain").mkdir()
    with pytest.raises(
        DataError, match=r"class folder scratch has no usable image: only 2 .gif, like stain.*--exclude scratch,stain"
    ):
        read_folder(tmp_path)
    rows = read_folder(tmp_path, FolderSettings(exclude=("scratch", "stain")))
    assert column(rows, "labels") == [["crack"], ["ok"]]


def test_a_class_folder_of_splits_without_a_usable_image_stops_the_command(tmp_path: Path) -> None:
    make(tmp_path, "train/ok/a.png", "train/crack/b.png", "train/stain/c.gif", "val/ok/d.png")
    with pytest.raises(DataError, match=r"train/stain has no usable image: only 1 \.gif.*--exclude stain"):
        read_folder(tmp_path)


def test_a_class_that_has_images_in_another_split_is_only_remarked_on(tmp_path: Path) -> None:
    make(tmp_path, "train/ok/a.png", "train/crack/b.png", "val/ok/c.png", "val/crack/d.gif")
    (tmp_path / "test").mkdir()
    assert set(read_folder(tmp_path).notes) == {
        "val/crack has no usable image: only 1 .gif",
        "test has no usable image: it is empty",
    }


def test_known_classes_may_have_no_image(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "crack/b.png")
    (tmp_path / "stain").mkdir()
    assert read_folder(tmp_path, known=("ok", "crack", "stain")).notes == ("stain has no usable image: it is empty",)


def test_folders_that_thaw_wrote_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "crack/b.png", "runs/train-1/THAW.TAG", "runs/train-1/augmentations.png")
    make(tmp_path, "train-2/THAW.TAG", "train-2/augmentations.png")
    rows = read_folder(tmp_path)
    assert column(rows, "labels") == [["crack"], ["ok"]]
    assert rows.notes == ("left out 2 folders written by Thaw: runs/train-1, train-2",)


def test_a_name_to_exclude_that_does_not_occur_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "ok/a.png", "crack/b.png")
    with pytest.raises(DataError, match="exclude names scrtch, but there is no such folder"):
        read_folder(tmp_path, FolderSettings(exclude=("scrtch",)))


def test_a_split_whose_images_are_not_labelled_can_be_left_out(tmp_path: Path) -> None:
    make(tmp_path, "train/ok/a.png", "train/crack/b.png", "test/1.png", "test/2.png")
    with pytest.raises(DataError, match=r"2 images outside the class folders .*leave them out with --exclude test"):
        read_folder(tmp_path)
    assert column(read_folder(tmp_path, FolderSettings(exclude=("test",))), "split") == ["train", "train"]
