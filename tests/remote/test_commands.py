"""Commands take addresses where they take images, and name files by their addresses; nothing tells of the mirror."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import thaw
from tests.distributed import several_processes as processes
from tests.remote.storages import BUCKET, put, put_folder
from tests.runs import outcome
from thaw.cache import clear
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.labelling.folder import ImageFolder
from thaw.pipeline import cross_validate, evaluate, finetune, predict
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.remote import local_path
from thaw.run_folder import RunFolder


@pytest.fixture
def surfaces(cache: Path, images: Path) -> Iterator[str]:
    """The address of the images of other tests."""
    fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
    put_folder(images, "surfaces")
    yield f"{BUCKET}/surfaces"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.slow
@pytest.mark.ci
def test_a_run_on_remote_images_is_the_same_run_and_names_their_address(
    surfaces: str, cache: Path, images: Path, quick: Recipe, trained: RunFolder, tmp_path: Path
) -> None:
    finetune(surfaces, quick, tmp_path / "runs", reporter=NullReporter())
    run = RunFolder(tmp_path / "runs" / "train-1")
    assert outcome(run) == outcome(trained)
    manifest = Manifest.read(run.manifest)
    assert manifest.column("path") == Manifest.read(trained.manifest).column("path")
    assert manifest.root == local_path(surfaces) and manifest.files()[0].is_file()
    assert surfaces in run.report.read_text(encoding="utf-8")
    texts = [file for file in run.path.rglob("*") if file.is_file()]
    assert not [file for file in texts if str(cache).encode() in file.read_bytes()]
    # The mirror comes back when it is needed.
    assert clear(cache)
    assert cross_validate(run.path, 2, reporter=NullReporter()).images == 36


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="several processes are tested on POSIX")
def test_several_processes_train_on_what_the_main_one_mirrors(images: Path, quick: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    done = processes.run(Path(f"file://{images}"), processes.recipe_of(quick), tmp_path)
    assert done.returncode == 0, done.stderr
    (mirror,) = (tmp_path / "cache" / "remote").iterdir()
    index = (mirror / "index.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(index) == 36 and f"file://{images}" in RunFolder(tmp_path / "runs" / "train-1").report.read_text("utf-8")


def test_the_command_line_takes_addresses_and_shows_them(
    surfaces: str,
    cache: Path,
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put({"surfaces/ok/damaged.png": b"damaged", "surfaces/notes.xyz": b"notes", "none/notes.txt": b"notes"})
    table = tmp_path / "table.csv"
    assert thaw(monkeypatch, "predict", trained.path, surfaces, "--out", table) == 0
    said = capsys.readouterr()
    assert f"left out 1 file: 1 .xyz ({surfaces}/notes.xyz)" in said.err and str(cache) not in said.err + said.out
    rows = rows_of(table)
    assert len(rows) == 37 and {row["path"].rpartition("/")[0] for row in rows} == {
        f"{surfaces}/{name}" for name in ("ok", "scratch", "stain")
    }
    assert thaw(monkeypatch, "predict", trained.path, f"{surfaces}/ok/000.png") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{surfaces}/ok/000.png,ok,")
    assert thaw(monkeypatch, "explain", trained.path, f"{surfaces}/ok", "--out", tmp_path / "why") == 0
    said = capsys.readouterr()
    assert f"{surfaces}/ok/damaged.png: " in said.err and str(cache) not in said.err
    assert (tmp_path / "why" / "000.png").is_file()
    out = tmp_path / "metrics.json"
    assert thaw(monkeypatch, "evaluate", trained.path, surfaces, "--out", out) == 0
    assert json.loads(out.read_text())["images"] == 36
    assert str(cache) not in capsys.readouterr().out
    queue = tmp_path / "queue.csv"
    words = ["label", surfaces, "--backbone", "starter", "--image-size", "64", "--out", queue]
    assert thaw(monkeypatch, *words) == 0
    assert {row["path"].partition("/")[0] for row in rows_of(queue)} <= {"ok", "scratch", "stain"}
    for words in (["train", f"{BUCKET}/none"], ["predict", trained.path, f"{BUCKET}/none"], ["inspect", "s4://x"]):
        capsys.readouterr()
        assert thaw(monkeypatch, *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"thaw: {words[-1]}: ") and str(cache) not in line


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_remote_table_is_mirrored_with_the_files_that_it_names(surfaces: str, cache: Path) -> None:
    rows = "path,label\nok/000.png,a\n../surfaces/stain/001.png,b\nno/such.png,b\n"
    put({"tables/labels.csv": rows.replace("ok/", "../surfaces/ok/").encode(), "surfaces/labels.csv": rows.encode()})
    for address in (f"{surfaces}/labels.csv", f"{BUCKET}/tables/labels.csv"):
        manifest = Dataset.open(address).manifest
        assert [file.is_file() for file in manifest.files()] == [True, True, False]
    mirrors = [file for file in local_path(BUCKET).rglob("*") if file.is_file()]
    assert len(mirrors) == 4


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_table_may_name_files_by_their_addresses(surfaces: str, cache: Path, tmp_path: Path, place: str) -> None:
    text = f"path,label\n{surfaces}/ok/000.png,a\n{surfaces}/stain/001.png,b\n"
    put({"tables/labels.csv": text.encode()})
    (tmp_path / "labels.csv").write_text(text)
    dataset = Dataset.open(tmp_path / "labels.csv" if place == "here" else f"{BUCKET}/tables/labels.csv")
    assert dataset.manifest.column("path") == ["ok/000.png", "stain/001.png"]
    assert dataset.manifest.root == local_path(surfaces)
    assert all(file.is_file() for file in dataset.manifest.files())


def test_metadata_of_files_outside_of_its_folder_is_refused_and_read_as_a_table(
    surfaces: str, cache: Path, tmp_path: Path
) -> None:
    text = f"file_name,label\n{surfaces}/ok/000.png,a\n{surfaces}/stain/001.png,b\n"
    put({"tables/metadata.csv": text.encode()})
    here = tmp_path / "here"
    here.mkdir()
    (here / "metadata.csv").write_text(text)
    for folder in (str(here), f"{BUCKET}/tables"):
        with pytest.raises(DataError, match=r"metadata\.csv: names files on storage outside of this folder; pass this"):
            Dataset.open(folder)
        manifest = Dataset.open(f"{folder}/metadata.csv").manifest
        assert manifest.root == local_path(surfaces) and all(file.is_file() for file in manifest.files())


def test_a_table_of_files_on_several_storages_is_refused(surfaces: str, cache: Path, tmp_path: Path) -> None:
    for other in ("b.png", "memory://elsewhere/b.png", "s3://bucket/b.png"):
        (tmp_path / "labels.csv").write_text(f"path,label\n{surfaces}/ok/000.png,a\n{other},b\n")
        with pytest.raises(DataError, match=f"names {surfaces}/ok/000.png and {other}; keep all files"):
            Dataset.open(tmp_path / "labels.csv")
    for other in ("/etc/b.png", "../../../../b.png"):
        put({"surfaces/labels.csv": f"path,label\nok/000.png,a\n{other},b\n".encode()})
        with pytest.raises(DataError, match=f"names {surfaces}/ok/000.png and {other}; keep all files"):
            Dataset.open(f"{surfaces}/labels.csv")


def test_an_export_of_an_annotation_tool_is_mirrored_with_its_folder(surfaces: str, cache: Path) -> None:
    tasks = [
        {"data": {"image": f"/data/upload/{name}"}, "annotations": [choice(label)]}
        for name, label in (("ok/000.png", "good"), ("stain/001.png", "bad"))
    ]
    put({"surfaces/export.json": json.dumps(tasks).encode()})
    manifest = Dataset.open(f"{surfaces}/export.json").manifest
    assert sorted(manifest.column("path")) == ["ok/000.png", "stain/001.png"]


def choice(label: str) -> dict[str, object]:
    return {"result": [{"type": "choices", "from_name": "c", "to_name": "i", "value": {"choices": [label]}}]}


def test_labels_may_be_on_the_storage_of_the_images_or_here(surfaces: str, cache: Path, tmp_path: Path) -> None:
    for cell in ("ok/000.png", f"{surfaces}/ok/000.png"):
        text = f"path,label\n{cell},good\n"
        put({"labels.csv": text.encode()})
        (tmp_path / "labels.csv").write_text(text)
        for table in (tmp_path / "labels.csv", Path(f"{BUCKET}/labels.csv")):
            manifest = ImageFolder.open(Path(surfaces), table).manifest
            rows = zip(manifest.column("path"), manifest.column("labels"), strict=True)
            assert [path for path, labels in rows if labels] == ["ok/000.png"]


def test_the_functions_take_addresses(surfaces: str, cache: Path, trained: RunFolder) -> None:
    assert evaluate(trained.path, surfaces).images == 36
    (prediction,) = predict(trained.path, [f"{surfaces}/ok/000.png"])
    assert prediction.status == "ok"
