"""Inspection of synthetic surfaces through a network with random weights, with faults planted."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.inspection.inspect import Inspection
from thaw.pipeline import inspect
from thaw.progress import NullReporter
from thaw.recipe import Recipe

CLASSES = ("ok", "scratch", "stain")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Surfaces with a mirrored copy under another label, an equal file, a black, a torn and a wide picture."""
    folder = tmp_path_factory.mktemp("faulty")
    write_surfaces(folder, images_per_class=24, size=64, classes=CLASSES)
    picture = Image.open(folder / "ok" / "003.png")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "stain" / "mirrored.png")
    shutil.copy(folder / "scratch" / "005.png", folder / "scratch" / "equal.png")
    Image.new("RGB", (64, 64), (3, 3, 3)).save(folder / "ok" / "black.png")
    other = np.asarray(Image.open(folder / "ok" / "010.png").convert("RGB"))
    Image.fromarray(other.repeat(4, axis=1)).save(folder / "ok" / "wide.png")
    (folder / "stain" / "torn.png").write_bytes((folder / "stain" / "001.png").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(faulty: Path, runs: Path, quick: Recipe) -> Inspection:
    return inspect(Dataset.open(faulty), quick, runs, reporter=NullReporter())


def paths(found: Inspection, *rows: int) -> set[str]:
    names = found.manifest.column("path")
    return {names[row] for row in rows}


def test_every_picture_is_counted_or_named_as_unreadable(found: Inspection) -> None:
    assert found.counts() == {"ok": {"all": 26}, "scratch": {"all": 25}, "stain": {"all": 25}}
    assert [path for path, _ in found.manifest.errors()] == ["stain/torn.png"]


def test_copies_are_found_and_told_apart(found: Inspection) -> None:
    told = {frozenset(paths(found, pair.first, pair.second)): pair.exact for pair in found.duplicates}
    assert told[frozenset({"scratch/005.png", "scratch/equal.png"})]
    assert not told[frozenset({"ok/003.png", "stain/mirrored.png"})]
    assert [paths(found, pair.first, pair.second) for pair in found.conflicting_labels] == [
        {"ok/003.png", "stain/mirrored.png"}
    ]


def test_pictures_that_are_no_good_are_flagged(found: Inspection) -> None:
    flags = {(flag.kind, *paths(found, flag.row)) for flag in found.flags}
    assert ("empty", "ok/black.png") in flags
    assert ("odd size", "ok/wide.png") in flags


def test_random_weights_remember_no_pre_training(found: Inspection) -> None:
    assert found.similarity.verdict == "unknown"
    assert found.similarity.shift is None


def test_accuracy_is_measured_and_carried_on(found: Inspection) -> None:
    assert found.probe is not None
    assert found.curve is not None
    assert found.probe.majority == pytest.approx(26 / 76)
    assert found.probe.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    sizes = [point.images for point in (*found.curve.measured, *found.curve.forecast)]
    assert sizes == sorted(sizes)
    assert all(0 <= point.low <= point.accuracy <= point.high <= 1 for point in found.curve.forecast)


def test_page_and_json_are_left_and_ask_for_no_network(found: Inspection, runs: Path) -> None:
    folder = runs / "inspect-1"
    page = (folder / "inspect.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "Duplicates under different labels" in page
    written = json.loads((folder / "inspect.json").read_text(encoding="utf-8"))
    assert written["unreadable"][0]["path"] == "stain/torn.png"
    assert len(written["duplicates"]) == len(found.duplicates)


def test_names_of_files_cannot_break_out_of_the_page(tmp_path: Path, images: Path, quick: Recipe) -> None:
    folder = tmp_path / "data"
    shutil.copytree(images, folder)
    (folder / "ok").rename(folder / "<script>alert(1)<")
    inspect(Dataset.open(folder), quick, tmp_path / "runs", reporter=NullReporter())
    page = (tmp_path / "runs" / "inspect-1" / "inspect.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page


def test_a_split_that_leaks_is_an_alarm_with_its_worth(tmp_path: Path, images: Path, quick: Recipe) -> None:
    files = sorted(images.rglob("*.png"))
    rows = [(str(file), file.parent.name, "test" if number % 4 == 0 else "train") for number, file in enumerate(files)]
    for number, file in enumerate(files[1::4][:6]):
        Image.open(file).convert("RGB").save(tmp_path / f"{number}.jpg", quality=85)
        rows.append((str(tmp_path / f"{number}.jpg"), file.parent.name, "test"))
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    found = inspect(Dataset.open(tmp_path / "table.csv"), quick, tmp_path / "runs", reporter=NullReporter())
    (leak,) = found.leaks
    assert leak.splits == ("train", "test")
    assert len(leak.duplicates) == 6
    assert leak.accuracy is not None
    assert leak.accuracy_without is not None
    page = (tmp_path / "runs" / "inspect-1" / "inspect.html").read_text(encoding="utf-8")
    assert 'class="alarm">The given splits leak: 6 pairs of twins stand in train and test' in page


def test_several_labels_on_an_image_are_inspected_as_far_as_they_can_be(
    tmp_path: Path, images: Path, quick: Recipe
) -> None:
    files = sorted(images.rglob("*.png"))
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        rows = [(str(file), f"{file.parent.name}|metal") for file in files]
        csv.writer(stream).writerows([("path", "labels"), *rows])
    found = inspect(Dataset.open(tmp_path / "table.csv"), quick, tmp_path / "runs", reporter=NullReporter())
    assert found.counts()["metal"] == {"all": 36}
    assert found.probe is None
    assert len(found.places) == 36
