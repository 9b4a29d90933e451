"""The new images of an update: compared with those of the run, decoded and split."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.remote.storages import BUCKET, downloads, put_folder
from tests.reporters import Listening
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError
from thaw.progress import NullReporter
from thaw.recipe import FolderSettings
from thaw.run_folder import RunFolder
from thaw.updating.new_images import NewImages, open_new, prepare_new
from thaw.updating.stored_run import StoredRun

Prepare = Callable[[Path], NewImages]


@pytest.fixture(scope="module")
def run(source: RunFolder) -> StoredRun:
    return StoredRun.read(source)


@pytest.fixture
def prepare(run: StoredRun) -> Prepare:
    return lambda data: prepare_new(run, open_new(run, data, NullReporter()), NullReporter())


def test_a_near_duplicate_of_an_old_image_goes_where_that_is(
    run: StoredRun, prepare: Prepare, images: Path, tmp_path: Path
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=20, size=64, classes=("ok",))
    paths, labels, old = (run.manifest.column(name) for name in ("path", "labels", "split"))
    chosen = {old.index(split): split for split in ("val", "test")}
    for row in chosen:
        place = tmp_path / "new" / labels[row][0] / f"copy-{row}.png"
        place.parent.mkdir(exist_ok=True)
        Image.open(images / paths[row]).point(lambda value: value * 0.9).save(place)
    manifest = prepare(tmp_path / "new").manifest
    found = dict(zip(manifest.column("path"), manifest.column("split"), strict=True))
    for row, split in chosen.items():
        assert found[str(tmp_path / "new" / labels[row][0] / f"copy-{row}.png")] == split
    assert manifest.column("split")[: len(run.manifest)] == old


def test_one_that_old_images_of_two_splits_resemble_goes_to_train_and_is_said(
    run: StoredRun, images: Path, tmp_path: Path
) -> None:
    """A group ties an old image of test and one of train to new images, which may not be evaluated then."""
    write_surfaces(tmp_path / "new", images_per_class=20, size=64, classes=("ok",))
    paths, labels, old = (run.manifest.column(name) for name in ("path", "labels", "split"))
    copies = {tmp_path / "new" / labels[row][0] / f"copy-{split}.png": row for split, row in first_rows(old).items()}
    for place, row in copies.items():
        place.parent.mkdir(exist_ok=True)
        Image.open(images / paths[row]).point(lambda value: value * 0.9).save(place)
    files = sorted((tmp_path / "new").rglob("*.png"))
    group = {file: "g" if file in copies else file.stem for file in files}
    table = tmp_path / "new.csv"
    lines = [f"{file},{file.parent.name},{group[file]}" for file in files]
    table.write_text("\n".join(["path,label,group", *lines]), encoding="utf-8")
    split = run.recipe.split.model_copy(update={"group_by": "column"})
    run = replace(run, recipe=run.recipe.model_copy(update={"split": split}))
    reporter = Listening()
    manifest = prepare_new(run, open_new(run, table, reporter), reporter).manifest
    found = dict(zip(manifest.column("path"), manifest.column("split"), strict=True))
    assert {found[str(place)] for place in copies} == {"train"}
    assert manifest.column("split")[: len(run.manifest)] == old
    assert any(
        "in different splits; images that keep their split: 2; new images among them" in line for line in reporter.said
    )
    assert "leak: 1 near-duplicates in train and test" in reporter.said


def first_rows(splits: list[str]) -> dict[str, int]:
    return {split: splits.index(split) for split in ("train", "test")}


def test_one_that_cannot_be_read_is_a_row_with_its_reason(prepare: Prepare, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "new", images_per_class=6, size=64, classes=("crack",))
    (tmp_path / "new" / "crack" / "broken.png").write_bytes(b"no image")
    found = prepare(tmp_path / "new")
    manifest = found.manifest
    assert all(Path(path).is_absolute() for path in manifest.column("path")[found.first :])
    ((path, reason),) = manifest.errors()
    assert path.endswith("broken.png") and reason
    row = manifest.column("path").index(path)
    assert manifest.column("split")[row] is None


@pytest.fixture
def of_folders(run: StoredRun) -> Callable[[FolderSettings], StoredRun]:
    """The run as if it had read its folder with other settings."""
    return lambda folders: replace(run, recipe=run.recipe.model_copy(update={"folders": folders}))


def test_folders_that_the_run_left_out_are_left_out_again(
    of_folders: Callable[[FolderSettings], StoredRun], tmp_path: Path
) -> None:
    run = of_folders(FolderSettings(exclude=("rejects", "absent"), layout="splits"))
    write_surfaces(tmp_path / "new", images_per_class=4, size=64, classes=("ok", "crack"))
    shutil.copytree(tmp_path / "new" / "ok", tmp_path / "new" / "rejects")
    assert open_new(run, tmp_path / "new", NullReporter()).classes == (*run.manifest.classes, "crack")
    table = tmp_path / "new.csv"
    table.write_text(f"path,label\n{next((tmp_path / 'new' / 'ok').iterdir())},ok\n", encoding="utf-8")
    assert len(open_new(run, table, NullReporter())) == 1


def test_images_on_storage_without_versions_are_downloaded_once(
    of_folders: Callable[[FolderSettings], StoredRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    write_surfaces(tmp_path / "new", images_per_class=2, size=64, classes=("ok", "crack"))
    put_folder(tmp_path / "new", to="new")
    memory = type(fsspec.filesystem("memory"))
    listed = memory.find

    def find(self: object, path: str, **kwargs: object) -> dict[str, dict[str, object]]:
        found = listed(self, path, **kwargs).items()
        return {name: {"type": "file", "name": name, "size": about["size"]} for name, about in found}

    with monkeypatch.context() as patch, downloads(monkeypatch) as names:
        patch.setattr(memory, "find", find)
        assert len(open_new(of_folders(FolderSettings(layout="classes")), f"{BUCKET}/new", NullReporter())) == 4
    assert len(names) == 4
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.parametrize(("layout", "classes"), [("classes", ("train", "val")), ("splits", ("crack", "pits"))])
def test_folders_are_read_as_the_run_read_its_own(
    of_folders: Callable[[FolderSettings], StoredRun], tmp_path: Path, layout: Any, classes: tuple[str, ...]
) -> None:
    run = of_folders(FolderSettings(layout=layout))
    write_surfaces(tmp_path / "flat", images_per_class=4, size=64, classes=("crack", "pits"))
    for split in ("train", "val"):
        shutil.copytree(tmp_path / "flat", tmp_path / "new" / split)
    assert open_new(run, tmp_path / "new", NullReporter()).classes == (*run.manifest.classes, *classes)
    if layout == "splits":
        assert open_new(run, tmp_path / "flat", NullReporter()).classes == (*run.manifest.classes, *classes)


@pytest.mark.parametrize(
    ("splits", "error", "said"),
    [
        (["train", "val", "test", "train"], None, ""),
        (["train", "train", "train", "test"], DataError, "the new class crack has no image in val"),
        (["val", "val", "test", "test"], DataError, "the new class crack has no image in train"),
    ],
)
def test_splits_that_the_data_give_are_kept(
    prepare: Prepare, tmp_path: Path, splits: list[str], error: type[Exception] | None, said: str
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=4, size=64, classes=("crack",))
    files = sorted((tmp_path / "new" / "crack").iterdir())
    lines = [f"{file},crack,{split}" for file, split in zip(files, splits, strict=True)]
    table = tmp_path / "new.csv"
    table.write_text("\n".join(["path,label,split", *lines]), encoding="utf-8")
    if error:
        with pytest.raises(error, match=said):
            prepare(table)
    else:
        assert prepare(table).manifest.column("split")[-4:] == splits
