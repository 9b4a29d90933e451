import csv
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reporters import Listening
from tests.runs import outcome
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.trial import TrialContext, begin, resume


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


def of_parts(images: Path, folder: Path, first: int = 0) -> Path:
    """The images under names of six parts of each class, `part3_1.png`."""
    for label in ("ok", "scratch", "stain"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(sorted((images / label).iterdir())):
            part = {"ok": 0, "scratch": 6, "stain": 12}[label] + number % 6
            shutil.copy(file, folder / label / f"part{part}_{first + number // 6}.png")
    return folder


def groups_of(run: RunFolder) -> dict[str, set[str]]:
    """The splits in which each group has images."""
    manifest, splits = Manifest.read(run.manifest), defaultdict(set)
    for group, split in zip(manifest.column("group"), manifest.column("split"), strict=True):
        splits[group].add(split)
    return dict(splits)


def test_groups_found_in_names_are_in_one_split_and_stay_there(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reporter, runs = of_parts(images, tmp_path / "parts"), Listening(), tmp_path / "runs"
    first = groups_of(begin(Dataset.open(folder), quick, TrialContext(runs, reporter)).folder)
    assert set(first) == {f"part{part}" for part in range(18)}
    assert all(len(splits) == 1 for splits in first.values())
    assert "groups found in file names: 18 of 2 images, such as part0 (part0_0.png, part0_1.png)" in reporter.said

    write_surfaces(tmp_path / "more", images_per_class=6, size=64, seed=5, classes=("ok", "scratch", "stain"))
    of_parts(tmp_path / "more", folder, first=2)
    begin(Dataset.open(folder), quick, TrialContext(runs, NullReporter()))
    assert groups_of(RunFolder(runs / "train-2")) == first

    monkeypatch.setattr("thaw.data.groups.find_groups", lambda *arguments: pytest.fail("groups are searched again"))
    resumed = resume(Dataset.open(folder), None, TrialContext(runs, NullReporter()))
    assert resumed.prepared.manifest == Manifest.read(RunFolder(runs / "train-2").manifest)


def test_a_run_that_began_without_groups_resumes_without_them(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = of_parts(images, tmp_path / "parts"), tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr("thaw.data.groups.find_groups", lambda *arguments: None)
        began = begin(Dataset.open(folder), quick, TrialContext(runs, NullReporter())).prepared.manifest
    assert resume(Dataset.open(folder), quick, TrialContext(runs, NullReporter())).prepared.manifest == began
    later = begin(Dataset.open(folder), quick, TrialContext(runs, NullReporter()))
    assert splits_of(later.folder) == splits_of(RunFolder(runs / "train-1"))


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


@pytest.mark.parametrize("inputs", ["cached", "fresh"])
def test_no_weight_no_epoch_and_no_threshold_depends_on_the_pixels_of_test_images(
    inputs: str, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = quick.with_settings({f"phases.{index}.inputs": inputs for index in range(2)})
    finetune(Dataset.open(images), recipe, tmp_path / "runs", reporter=NullReporter())
    before, after = (RunFolder(tmp_path / "runs" / f"train-{number}") for number in (1, 2))
    manifest = Manifest.read(before.manifest)
    assert len(manifest.indices("test")) != len(manifest.indices("val"))

    changed, draws = tmp_path / "changed", np.random.default_rng(0)
    shutil.copytree(images, changed)
    for row in manifest.indices("test"):
        noise = draws.integers(0, 256, size=(64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(changed / manifest.column("path")[int(row)])
    same_splits = Dataset.open(changed).manifest.with_columns({"split": manifest.column("split")})
    finetune(Dataset(same_splits), recipe, tmp_path / "runs", reporter=NullReporter())
    assert splits_of(after) == splits_of(before)
    assert outcome(after) == outcome(before)
    for name in ("config.json", "review.safetensors"):
        assert (after.model / name).read_bytes() == (before.model / name).read_bytes()
    tested = [run.read_evaluation().evaluations for run in (before, after)]
    assert tested[0]["val"] == tested[1]["val"] and tested[0]["test"] != tested[1]["test"]
