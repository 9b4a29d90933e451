"""The new images of an update: compared with those of the run, decoded and split."""

import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from tests.remote.storages import BUCKET, downloads, put_folder
from tests.reporters import Listening
from thaw.cache import cache_folder
from thaw.data.dataset import Dataset
from thaw.data.groups import origin_of_groups
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import DataPreparation
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError
from thaw.progress import NullReporter
from thaw.recipe import FolderSettings, SplitSettings
from thaw.run_folder import ImagesPart, RunFolder
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


def test_sizes_of_old_images_are_read_once_and_not_for_each_image(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=20, size=64, classes=("ok",))
    sizes, read = PixelStore.sizes.fget, []
    assert sizes
    monkeypatch.setattr(PixelStore, "sizes", property(lambda store: read.append(store) or sizes(store)))
    prepare(tmp_path / "new")
    assert 0 < len(read) <= 5


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
        (
            ["train", "train", "train", "test"],
            DataError,
            "the new class crack has no image in val; add one there, or give",
        ),
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
        with pytest.raises(error, match=f"{re.escape(str(tmp_path))}.*: {said}"):
            prepare(table)
    else:
        assert prepare(table).manifest.column("split")[-4:] == splits


def test_that_a_new_class_has_too_few_images_names_their_folder_and_what_an_update_can_do(
    prepare: Prepare, tmp_path: Path
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=2, size=64, classes=("crack",))
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "new")
    assert str(caught.value).startswith(f"{tmp_path / 'new'}: too few images to split: crack has 2, needs 2 more")
    assert str(caught.value).endswith("add images or remove the class")


@pytest.fixture
def of_groups(run: StoredRun, tmp_path: Path) -> Callable[..., StoredRun]:
    """The run as if it had been trained on the images of a folder or table, with the groups that they have."""

    def trained_on(data: Path, group_by: str = "auto") -> StoredRun:
        split, spec = SplitSettings(group_by=group_by), run.classifier.backbone.facts.pixels
        preparation = DataPreparation(run.recipe.decode, split, None, cache_folder(), NullReporter().bar)
        prepared = preparation.prepare(Dataset.open(data), spec)
        resolved, _ = origin_of_groups(split, prepared.manifest)
        recipe = run.recipe.model_copy(update={"split": split.model_copy(update={"group_by": resolved})})
        parts = (ImagesPart(len(prepared.manifest), prepared.pixels.key),)
        return replace(run, recipe=recipe, manifest=prepared.manifest, parts=parts)

    return trained_on


def write_parts(folder: Path, name: str, parts: Iterable[int], each: int, seed: int = 0) -> Path:
    """Images of two classes, the same number of each part; `name` is a format of class, part and image."""
    parts = list(parts)
    write_surfaces(folder / "any", len(parts) * each, 64, seed, ("ok", "stain"))
    for label in ("ok", "stain"):
        for number, file in enumerate(sorted((folder / "any" / label).iterdir())):
            place = folder / name.format(label=label, part=parts[number // each], image=seed * 100 + number % each)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    shutil.rmtree(folder / "any")
    return folder


def splits_of_parts(manifest: Manifest) -> dict[tuple[str, str], set[str]]:
    """The splits that the images of each part are in, for the class and the part in the names of files."""
    found = defaultdict[tuple[str, str], set[str]](set)
    for path, labels, split in zip(*(manifest.column(name) for name in ("path", "labels", "split")), strict=True):
        found[labels[0], Path(path).stem.rpartition("_")[0]].add(split)
    return found


@pytest.mark.parametrize("name", ["{label}/{label}part{part}_{image}.png", "{label}/part{part}_{image}.png"])
def test_a_few_new_images_of_a_part_go_where_the_run_has_found_that_part(
    of_groups: Callable[..., StoredRun], tmp_path: Path, name: str
) -> None:
    """Too few to find groups in, and in the second data set numbered anew in each class."""
    run = of_groups(write_parts(tmp_path / "old", name, range(12), each=3))
    new = write_parts(tmp_path / "new", name, range(10), each=1, seed=1)
    shutil.rmtree(new / "stain")
    reporter = Listening()
    found = prepare_new(run, open_new(run, new, reporter), reporter)
    splits = splits_of_parts(found.manifest)
    assert len(splits) == 24 and all(len(own) == 1 for own in splits.values())
    assert {"train", "val", "test"} == set.union(*splits.values())
    assert {*found.manifest.column("group")} == {*run.manifest.column("group")}
    assert f"new images of groups of {run.folder.path}, which go where their group is: 10" in reporter.said
    again = replace(run, manifest=found.manifest, parts=(*run.parts, ImagesPart(10, found.pixels.key)))
    newer = write_parts(tmp_path / "newer", name, range(12), each=1, seed=2)
    splits = splits_of_parts(prepare_new(again, open_new(again, newer, reporter), reporter).manifest)
    assert len(splits) == 24 and all(len(own) == 1 for own in splits.values())


def test_new_images_of_a_capture_session_go_where_the_run_has_it_although_it_begins_earlier_now(
    of_groups: Callable[..., StoredRun], tmp_path: Path
) -> None:
    def written(folder: Path, seconds: int, seed: int) -> Path:
        """Images as a camera names them, of sessions that are a day apart."""
        write_parts(folder, "{label}/{part}_{image}.png", range(6), each=3, seed=seed)
        for number, label in enumerate(("ok", "stain")):
            for place in sorted((folder / label).iterdir()):
                part, image = map(int, place.stem.split("_"))
                exif = Image.Exif()
                time = f"2021:03:{10 * number + part + 1:02} 11:20:{seconds + image % 100:02}"
                exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = time
                digest = hashlib.sha256(place.name.encode()).hexdigest()
                Image.open(place).save(folder / label / f"{digest}.jpg", exif=exif)
                place.unlink()
        return folder

    run = of_groups(written(tmp_path / "old", 30, seed=0))
    assert "EXIF" in run.manifest.grouping
    found = prepare_new(run, open_new(run, written(tmp_path / "new", 10, seed=1), NullReporter()), NullReporter())
    splits = defaultdict[str, set[str]](set)
    for group, split in zip(found.manifest.column("group"), found.manifest.column("split"), strict=True):
        splits[group].add(split)
    assert splits.keys() == {*run.manifest.column("group")}
    assert all(len(own) == 1 for own in splits.values())


def test_new_images_in_whose_names_the_groups_of_the_run_are_not_are_said_to_be_split_one_by_one(
    of_groups: Callable[..., StoredRun], tmp_path: Path
) -> None:
    run = of_groups(write_parts(tmp_path / "old", "{label}/{label}part{part}_{image}.png", range(12), each=3))
    new = write_surfaces(tmp_path / "new", images_per_class=4, size=64, seed=1, classes=("ok", "stain"))
    reporter = Listening()
    manifest = prepare_new(run, open_new(run, tmp_path / "new", reporter), reporter).manifest
    assert manifest.column("group")[-8:] == [None] * 8
    assert sum("cannot be told for 8 of 8 new images, such as ok/" in line for line in reporter.said) == 1
    assert not any("images of one group stay in the same split" in line for line in reporter.said)
    assert len(new) == 8


def test_new_images_without_the_column_of_groups_that_the_run_had_are_said_to_be_split_one_by_one(
    of_groups: Callable[..., StoredRun], tmp_path: Path
) -> None:
    old = write_parts(tmp_path / "old", "{label}/{label}part{part}_{image}.png", range(12), each=3)
    lines = [f"{file},{file.parent.name},{file.stem.partition('_')[0]}" for file in sorted(old.rglob("*.png"))]
    (tmp_path / "old.csv").write_text("\n".join(["path,label,group", *lines]), encoding="utf-8")
    run = of_groups(tmp_path / "old.csv")
    assert run.recipe.split.group_by == "column"
    new = write_parts(tmp_path / "new", "{label}/{label}part{part}_{image}.png", range(4), each=1, seed=1)
    reporter = Listening()
    prepare_new(run, open_new(run, new, reporter), reporter)
    assert sum("cannot be told for 8 of 8 new images" in line for line in reporter.said) == 1
