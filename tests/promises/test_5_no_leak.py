import csv
import shutil
from collections import defaultdict
from pathlib import Path

from PIL import Image

from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder


def splits_of(run: RunFolder) -> dict[str, str]:
    manifest = Manifest.read(run.manifest)
    return dict(zip(manifest.column("path"), manifest.column("split"), strict=True))


def test_images_keep_their_split_when_images_are_added(images: Path, quick: Recipe, tmp_path: Path) -> None:
    short = quick.model_copy(update={"phases": quick.phases[:1]})
    folder = tmp_path / "growing"
    shutil.copytree(images, folder)
    finetune(Dataset.open(folder), short, tmp_path / "runs", reporter=NullReporter())
    write_surfaces(tmp_path / "more", images_per_class=9, size=64, seed=5, classes=("ok", "scratch", "stain"))
    for file in sorted((tmp_path / "more").rglob("*.png")):
        shutil.copy(file, folder / file.parent.name / f"a-{file.name}")
    finetune(Dataset.open(folder), short, tmp_path / "runs", reporter=NullReporter())
    before = splits_of(RunFolder(tmp_path / "runs" / "train-1"))
    after = splits_of(RunFolder(tmp_path / "runs" / "train-2"))
    assert len(after) == len(before) + 27
    assert {path: after[path] for path in before} == before
    assert set(after.values()) == {"train", "val", "test"}


def test_groups_and_identical_files_are_in_one_split(images: Path, quick: Recipe, tmp_path: Path) -> None:
    short = quick.model_copy(update={"phases": quick.phases[:1]})
    rows = [
        (str(file), file.parent.name, f"{file.parent.name}-{int(file.stem) // 2}")
        for file in sorted(images.rglob("*.png"))
    ]
    duplicate = tmp_path / "duplicate.png"
    shutil.copy(images / "ok" / "004.png", duplicate)
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "group"), *rows, (str(duplicate), "ok", "elsewhere")])
    finetune(Dataset.open(tmp_path / "table.csv"), short, tmp_path / "runs", reporter=NullReporter())
    manifest = Manifest.read(RunFolder(tmp_path / "runs" / "train-1").manifest)
    sides = defaultdict(set)
    for column in ("group", "sha256"):
        for name, split in zip(manifest.column(column), manifest.column("split"), strict=True):
            sides[name].add(split)
    assert len(sides) > 36
    assert all(len(splits) == 1 for splits in sides.values())


def test_the_split_is_stratified(trained: RunFolder) -> None:
    counts = Manifest.read(trained.manifest).counts()
    assert all(count[split] >= 1 for count in counts.values() for split in ("train", "val", "test"))
    assert all(6 <= count["train"] <= 10 for count in counts.values())


def test_near_duplicates_are_in_one_split(images: Path, quick: Recipe, tmp_path: Path) -> None:
    short = quick.model_copy(update={"phases": quick.phases[:1]})
    folder = tmp_path / "copied"
    shutil.copytree(images, folder)
    originals = sorted(images.rglob("*.png"))
    for file in originals:
        image = Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.save(folder / file.parent.name / f"copy-of-{file.stem}.jpg", quality=90)
    finetune(Dataset.open(folder), short, tmp_path / "runs", reporter=NullReporter())
    split = splits_of(RunFolder(tmp_path / "runs" / "train-1"))
    named = [(f"{file.parent.name}/{file.name}", f"{file.parent.name}/copy-of-{file.stem}.jpg") for file in originals]
    assert all(split[original] == split[copy] for original, copy in named)
    assert set(split.values()) == {"train", "val", "test"}
