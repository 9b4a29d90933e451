import csv
import io
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Refuse
from tests.cli.running import thaw

QUICK = ("--backbone", "starter", "--image-size", "64", "--engine", "pytorch-fp32")


def test_the_queue_is_on_standard_output_and_the_rest_elsewhere(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "label", images, *QUICK, "--number", "4") == 0
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert "0 images labelled, 36 to choose from" in said.err and "typical images: no label yet" in said.err


def test_the_queue_is_in_utf8_where_the_system_has_another_encoding(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stdout = tmp_path / "images", io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    folder.mkdir()
    shutil.copy(min(images.rglob("*.png")), folder / "Größe ひ.png")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert thaw(monkeypatch, "label", folder, *QUICK) == 0
    assert "Größe ひ.png," in stdout.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


def test_hostile_file_names_are_rows_of_their_own(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "images", tmp_path / "queue.csv"
    folder.mkdir()
    names = ['a,"b".png', "line\nbreak.png", "=1+1.png", " blank .png", "ü.png"]
    for name, source in zip(names, sorted(images.rglob("*.png"))[::7], strict=False):
        shutil.copy(source, folder / name)
    (folder / "-broken\n.png").write_bytes(b"")
    assert thaw(monkeypatch, "label", folder, *QUICK, "--out", out) == 0
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {Path(row["path"]) for row in rows if row["reason"] == "typical"} == {Path(name) for name in names}
    assert [row["path"] for row in rows if row["reason"] == "error"] == ["./-broken\n.png"] and rows[-1]["error"]


def test_a_table_of_labels_gives_suggestions_and_says_when_to_stop(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    rows = [f"{file.relative_to(images).as_posix()},{file.parent.name}" for file in sorted(images.rglob("*.png"))[::2]]
    labels.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert thaw(monkeypatch, "label", images, *QUICK, "--labels", labels) == 0
    said = capsys.readouterr()
    queue = list(csv.DictReader(io.StringIO(said.out)))
    assert len(queue) == 18 and all(0 < float(row["confidence"]) <= 1 and row["suggested"] for row in queue)
    assert "18 more labels: " in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere: no such folder"),
        (("empty",), "empty: no image in this folder, it is empty"),
        (("images", "--labels", "nowhere.csv"), "nowhere.csv: no such file"),
        (("images", "--labels", "other.csv"), "no path in it is an image in"),
        (("images", "--out", "other.csv"), "other.csv: already exists; remove it or choose another place"),
        (("images", "--out", "nowhere/queue.csv"), "there is no folder nowhere"),
        (("images", "--backbone", "resnet5O"), "resnet5O"),
        (("images", "--number", "0"), "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    words: tuple[str, ...], message: str, images: Path, tmp_path: Path, refuse: Refuse
) -> None:
    (tmp_path / "images").symlink_to(images)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("path,label\nz.png,ok\n", encoding="utf-8")
    said = refuse("label", *words)
    assert message in said.err and said.out == ""
