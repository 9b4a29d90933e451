import os
from pathlib import Path

import pytest

from thaw.data.walk import Omitted, files_below, images_below, kinds_in
from thaw.errors import DataError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(root: Path, omitted: Omitted) -> list[str]:
    return list(images_below(root, omitted))


@pytest.mark.parametrize(
    "files",
    [
        ["runs/train-1/THAW.TAG", "runs/train-1/augmentations.png"],
        ["runs/train-1/recipe.yaml", "runs/train-1/manifest.parquet", "runs/train-1/model/golden/00.png"],
        ["runs/train-1/inspect.html", "runs/train-1/inspect.json", "runs/train-1/example.png"],
        ["runs/train-1/config.json", "runs/train-1/labels.txt", "runs/train-1/SHA256SUMS", "runs/train-1/golden/0.png"],
        ["runs/train-1/golden.json", "runs/train-1/00.png"],
        ["runs/train-1/seal.json", "runs/train-1/00.png"],
    ],
    ids=["marked", "run of an earlier release", "inspection", "bundle", "golden images", "cache"],
)
def test_folders_that_thaw_wrote_are_left_out_and_named(tmp_path: Path, files: list[str]) -> None:
    omitted = Omitted()
    assert listed(make(tmp_path, "ok/a.png", *files), omitted) == ["ok/a.png"]
    assert omitted.written_by_thaw == ["runs/train-1"]
    assert omitted.notes() == ("left out 1 folder written by Thaw: runs/train-1",)


def test_the_listed_folder_itself_may_be_one_that_thaw_wrote(tmp_path: Path) -> None:
    assert listed(make(tmp_path, "THAW.TAG", "images/ok/a.png"), Omitted()) == ["images/ok/a.png"]


def test_folders_of_archives_and_network_drives_are_hidden_ones(tmp_path: Path) -> None:
    omitted = Omitted()
    make(tmp_path, "ok/a.png", "__MACOSX/ok/._a.png", "ok/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/b.png")
    assert listed(tmp_path, omitted) == ["ok/a.png"]
    assert omitted.files == {"hidden": 3}


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    omitted = Omitted()
    make(tmp_path, "ok/a.png", "ok/b.gif", "ok/c.GIF", "scan")
    assert listed(tmp_path, omitted) == ["ok/a.png"]
    assert omitted.files == {".gif": 2, "": 1}
    assert omitted.kinds() == "only 2 .gif, 1 without suffix"


def test_files_of_any_kind_are_listed_where_all_are_asked_for(tmp_path: Path) -> None:
    omitted = Omitted()
    make(tmp_path, "a.heic", "b", "run/THAW.TAG", "run/c.png", ".d.png")
    assert list(files_below(tmp_path, omitted)) == ["a.heic", "b"]
    assert omitted.files == {"hidden": 1} and omitted.written_by_thaw == ["run"]


def test_folders_to_exclude_are_names_or_paths(tmp_path: Path) -> None:
    omitted = Omitted(exclude=("thumbs", "ok/old/"))
    make(tmp_path, "ok/a.png", "ok/thumbs/a.png", "ok/old/b.png", "old/c.png", "mythumbs/d.png")
    assert listed(tmp_path, omitted) == ["mythumbs/d.png", "ok/a.png", "old/c.png"]
    assert sorted(omitted.excluded) == ["ok/old", "ok/thumbs"]


def test_a_folder_to_exclude_may_be_a_path_of_windows_there(monkeypatch: pytest.MonkeyPatch) -> None:
    omitted = Omitted(exclude=("sub\\raw\\",))
    assert not omitted.excludes("a/sub/raw")
    monkeypatch.setattr("os.sep", "\\")
    assert omitted.excludes("a/sub/raw") and not omitted.excludes("a/raw")


def test_links_that_lead_to_themselves_are_files(tmp_path: Path) -> None:
    omitted = Omitted()
    make(tmp_path, "ok/a.png")
    for name in ("loop", "loop.png"):
        (tmp_path / "ok" / name).symlink_to(name)
    assert listed(tmp_path, omitted) == ["ok/a.png", "ok/loop.png"]
    assert omitted.files == {"": 1}


def test_a_folder_that_leads_to_itself_or_nowhere_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(DataError, match="loop: a link that leads to itself"):
        files_below(tmp_path / "loop", Omitted())
    with pytest.raises(DataError, match="broken: a link to something that does not exist"):
        files_below(tmp_path / "broken", Omitted())


def test_a_name_that_is_not_utf8_is_listed_as_a_file_but_refused_as_an_image(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    assert len(list(files_below(tmp_path, Omitted()))) == 2
    with pytest.raises(DataError, match="not valid UTF-8"):
        list(images_below(tmp_path, Omitted()))


def test_what_a_folder_without_images_holds(tmp_path: Path) -> None:
    assert kinds_in(tmp_path) == "it is empty"
    assert kinds_in(make(tmp_path, "a.gif", "b.gif", "scan")) == "only 2 .gif, 1 without suffix"
