"""Inspection of synthetic surfaces with planted faults, by a backbone with random weights."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from tests.terminal.test_classes import Tables
from tests.vocabulary import offences, text_of
from thaw.data.dataset import Dataset
from thaw.data.pixel_store import PixelStore
from thaw.data.surfaces import write_surfaces
from thaw.inspection.duplicates import find_duplicates
from thaw.inspection.findings import Finding, findings
from thaw.inspection.inspect import Inspection
from thaw.inspection.page import to_json, write_page
from thaw.pipeline import inspect
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import Recipe
from thaw.run_folder import InspectionFolder
from thaw.terminal.inspection import show_inspection
from thaw.terminal.planning import show_data

CLASSES = ("ok", "scratch", "stain")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Surfaces with a flipped copy under another label, an identical file, a black, a truncated and a wide image."""
    folder = tmp_path_factory.mktemp("faulty")
    write_surfaces(folder, images_per_class=24, size=64, classes=CLASSES)
    image = Image.open(folder / "ok" / "003.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "stain" / "flipped.png")
    shutil.copy(folder / "scratch" / "005.png", folder / "scratch" / "identical.png")
    Image.new("RGB", (64, 64), (3, 3, 3)).save(folder / "ok" / "black.png")
    other = np.asarray(Image.open(folder / "ok" / "010.png").convert("RGB"))
    Image.fromarray(other.repeat(4, axis=1)).save(folder / "ok" / "wide.png")
    (folder / "stain" / "truncated.png").write_bytes((folder / "stain" / "001.png").read_bytes()[:200])
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


def test_every_image_is_counted_or_listed_as_unreadable(found: Inspection, runs: Path) -> None:
    assert found.counts() == {"ok": {"all": 26}, "scratch": {"all": 25}, "stain": {"all": 25}}
    assert [path for path, _ in found.manifest.errors()] == ["stain/truncated.png"]
    reporter = Tables()
    show_inspection(found, InspectionFolder(runs / "inspect-1"), reporter)
    show_data(found.manifest, (), reporter)
    titles = [title for title, _, _ in reporter.shown]
    assert titles[0] == titles[-1] == "76 images, 3 classes"


def test_groups_found_in_names_are_a_finding_and_in_one_fold(images: Path, runs: Path, quick: Recipe) -> None:
    folder = runs / "parts"
    for number, file in enumerate(sorted(images.rglob("*.png"))):
        place = folder / file.parent.name / f"part{number // 3}_{number % 3}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    found = inspect(Dataset.open(folder), quick, runs, reporter=NullReporter())
    texts = [finding.text for finding in findings(found)]
    assert "Groups found in file names: 12 of 3 images, such as part0 (part0_0.png, part0_1.png, …)." in texts
    assert "Fewer than 5 groups, so images are divided into folds one by one: ok, scratch, stain." in texts
    ungrouped = quick.with_settings({"split.group_by": "none"})
    assert inspect(Dataset.open(folder), ungrouped, runs, reporter=NullReporter()).groups == ()


def test_a_class_with_one_image_is_named_and_the_others_are_measured(
    images: Path, runs: Path, quick: Recipe, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "images")
    write_surfaces(tmp_path / "images", images_per_class=1, size=64, classes=("crack",))
    found = inspect(Dataset.open(tmp_path / "images"), quick, runs, reporter=NullReporter())
    assert found.probe is not None and found.probe.folds == 5
    texts = [finding.text for finding in findings(found)]
    assert "crack has 1 image: not tested by cross-validation." in texts
    assert to_json(found)["linear_probe"]["untested"] == {"crack": 1}


def test_that_too_few_images_are_not_measured_is_a_finding(
    images: Path, runs: Path, quick: Recipe, tmp_path: Path
) -> None:
    write_surfaces(tmp_path / "images", images_per_class=1, size=64, classes=("crack", "stain"))
    shutil.copytree(images / "ok", tmp_path / "images" / "ok")
    found = inspect(Dataset.open(tmp_path / "images"), quick, runs, reporter=NullReporter())
    assert found.probe is None
    assert sum("not measured: fewer than two classes have two images" in each.text for each in findings(found)) == 1


def test_identical_files_and_near_duplicates_are_distinguished(found: Inspection) -> None:
    exact = {frozenset(paths(found, pair.first, pair.second)): pair.exact for pair in found.duplicates}
    assert exact[frozenset({"scratch/005.png", "scratch/identical.png"})]
    assert not exact[frozenset({"ok/003.png", "stain/flipped.png"})]
    assert [paths(found, pair.first, pair.second) for pair in found.conflicting_labels] == [
        {"ok/003.png", "stain/flipped.png"}
    ]


def test_images_of_doubtful_quality_are_flagged(found: Inspection, runs: Path) -> None:
    flags = {(flag.issue, *paths(found, flag.row)) for flag in found.quality_flags}
    assert ("empty", "ok/black.png") in flags
    assert ("odd size", "ok/wide.png") in flags
    page = (runs / "inspect-1" / "inspect.html").read_text(encoding="utf-8")
    assert "odd size: pixels 16,384, median 4,096" in page


def test_similarity_is_unknown_for_random_weights(found: Inspection) -> None:
    assert found.similarity.verdict == "unknown"
    assert found.similarity.shift is None


def test_learning_curve_is_measured_and_extrapolated(found: Inspection) -> None:
    assert found.probe is not None
    assert found.curve is not None
    assert found.probe.majority_accuracy == pytest.approx(26 / 76)
    assert found.probe.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    sizes = [point.images for point in (*found.curve.measured, *found.curve.forecast)]
    assert sizes == sorted(sizes)
    assert all(0 <= point.low <= point.accuracy <= point.high <= 1 for point in found.curve.forecast)


def test_that_a_sample_was_measured_is_said_on_terminal_and_page_and_in_json(found: Inspection, faulty: Path) -> None:
    assert found.probe and "sample" not in to_json(found)["linear_probe"]
    assert not any("sample" in finding.text for finding in findings(found))
    sampled = replace(found, probe=replace(found.probe, sample=10_000))
    texts = [finding.text for finding in findings(sampled)]
    fitted = "heads, neighbours and the learning curve are fitted on a random sample of 10,000 images."
    assert any(text.endswith(fitted) for text in texts)
    assert any(text.startswith("Doubling a random sample of 10,000 images would add") for text in texts)
    assert to_json(sampled)["linear_probe"]["sample"] == 10_000
    pixels = cast(PixelStore, SimpleNamespace(read=lambda _: np.zeros((8, 8, 3), np.uint8)))
    assert "Measured on a random sample of 10,000 images." in write_page(sampled, pixels)


def test_the_bar_of_the_analysis_moves_with_every_head(images: Path, runs: Path, quick: Recipe) -> None:
    moved = list[tuple[int, int]]()

    class Watching(NullReporter):
        def bar(self, title: str) -> OnProgress:
            return lambda done, total: moved.append((done, total)) if title == "analyse features" else None

    inspect(Dataset.open(images), quick, runs, reporter=Watching())
    # Outliers of three classes, the map, five folds, 24 heads of the learning curve, and the end.
    assert moved == [(done, 34) for done in range(1, 35)]


def test_page_and_json_are_written_and_load_nothing_from_the_network(found: Inspection, runs: Path) -> None:
    folder = runs / "inspect-1"
    page = (folder / "inspect.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "Duplicates with conflicting labels" in page
    assert offences(text_of(page)) == []
    written = json.loads((folder / "inspect.json").read_text(encoding="utf-8"))
    assert written["unreadable"][0]["path"] == "stain/truncated.png"
    assert len(written["duplicates"]) == len(found.duplicates)
    assert len(written["label_errors"]) == len(found.label_errors)
    assert all({error["given"], error["suggested"]} <= set(CLASSES) for error in written["label_errors"])


def test_file_names_are_escaped(tmp_path: Path, images: Path, quick: Recipe) -> None:
    folder = tmp_path / "data"
    shutil.copytree(images, folder)
    (folder / "ok").rename(folder / "<script>alert(1)<")
    inspect(Dataset.open(folder), quick, tmp_path / "runs", reporter=NullReporter())
    page = (tmp_path / "runs" / "inspect-1" / "inspect.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page


def test_a_leak_between_given_splits_is_an_alarm_with_its_effect_on_accuracy(
    tmp_path: Path, images: Path, quick: Recipe
) -> None:
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
    assert leak.accuracy_without_leaks is not None
    page = (tmp_path / "runs" / "inspect-1" / "inspect.html").read_text(encoding="utf-8")
    assert 'class="alarm">Leak between the given splits: 6 duplicate pairs in train and test' in page


def test_multilabel_data_is_inspected_without_a_linear_head(tmp_path: Path, images: Path, quick: Recipe) -> None:
    files = sorted(images.rglob("*.png"))
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        rows = [(str(file), f"{file.parent.name}|metal") for file in files]
        csv.writer(stream).writerows([("path", "labels"), *rows])
    found = inspect(Dataset.open(tmp_path / "table.csv"), quick, tmp_path / "runs", reporter=NullReporter())
    assert found.counts()["metal"] == {"all": 36}
    assert found.probe is None
    assert len(found.map_points) == 36


def test_images_without_a_label_are_no_images_of_the_first_class(tmp_path: Path, quick: Recipe) -> None:
    """Thirty images of vertical stripes have no label; ten of horizontal ones do, and are no outliers among them."""
    rng, rows = np.random.default_rng(0), []
    for number in range(40):
        stripes = np.tile(np.repeat([40, 200], 8), 4)[None, :].repeat(64, axis=0) + rng.integers(0, 30, (64, 64))
        has_label = number >= 30
        Image.fromarray((stripes.T if has_label else stripes).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", ("crack|dent" if number % 2 else "crack") if has_label else ""))
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "labels"), *rows])
    found = inspect(Dataset.open(tmp_path / "table.csv"), quick, tmp_path / "runs", reporter=NullReporter())
    assert not {outlier.row for outlier in found.outliers} & set(range(30, 40))
    page = (tmp_path / "runs" / "inspect-1" / "inspect.html").read_text(encoding="utf-8")
    colours = {name: colour for colour, name in re.findall(r'<i style="background:([^"]+)"></i>([^<]+)</span>', page)}
    assert list(colours) == ["crack", "dent", "no label"] and len(set(colours.values())) == 3
    assert page.count(f'fill="{colours["no label"]}"') == 30 and page.count(f'fill="{colours["crack"]}"') == 10
    assert "<title>0.png: no label</title>" in page


def test_images_that_are_all_the_same_are_a_finding_without_a_map(tmp_path: Path, quick: Recipe) -> None:
    for number in range(12):
        place = tmp_path / "white" / CLASSES[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48 + number, 48), "white").save(place / f"{number}.png")
    found = inspect(Dataset.open(tmp_path / "white"), quick, tmp_path / "runs", reporter=NullReporter())
    assert found.map_points == ()
    assert findings(found)[0] == Finding(
        "alarm", "All images have the same features, so nothing tells them apart; there is no map."
    )
    assert "<h2>Map</h2>" not in (tmp_path / "runs" / "inspect-1" / "inspect.html").read_text()


def test_many_identical_files_are_paired_with_the_first_of_each_split(images: Path) -> None:
    manifest = Dataset.open(images).manifest
    rows = len(manifest)
    splits = ["test" if row % 2 else "train" for row in range(rows)]
    same = manifest.with_columns({"sha256": ["0" * 64] * rows, "status": ["ok"] * rows, "split": splits})
    pixels = cast(PixelStore, SimpleNamespace(duplicates=lambda workers, on_progress: ()))
    found = find_duplicates(same, pixels, lambda done, total: None)
    expected = {(0, row) for row in range(1, rows)} | {(1, row) for row in range(2, rows, 2)}
    assert {(pair.first, pair.second) for pair in found} == expected and all(pair.exact for pair in found)
    unsplit = find_duplicates(same.with_columns({"split": [None] * rows}), pixels, lambda done, total: None)
    assert len(unsplit) == rows - 1
