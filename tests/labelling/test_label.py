"""The queue of real image files: what is asked for, what is not, and that names and order of files do not matter."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import thaw
from thaw.data.manifest import Manifest
from thaw.errors import DataError, RecipeError
from thaw.labelling.queue import LabelQueue
from thaw.progress import NullReporter
from thaw.recipe import Recipe

STARTER = Recipe().with_settings({"backbone": "starter", "preprocessing.image_size": 64, "engine": "pytorch-fp32"})


def label(images: Path, labels: Path | None = None, number: int = 100) -> LabelQueue:
    return thaw.label(images, labels, number, STARTER, NullReporter())


def table(file: Path, images: Path, count: int = 24) -> Path:
    """Labels of the first images of each class folder."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        for folder in sorted(images.iterdir()):
            for image in sorted(folder.iterdir())[: count // 3]:
                writer.writerow((image.relative_to(images), folder.name))
    return file


def test_without_labels_the_queue_has_every_image_once(images: Path) -> None:
    queue = label(images)
    assert sorted(image.path for image in queue) == sorted(
        file.relative_to(images).as_posix() for file in images.rglob("*.png")
    )
    assert [image.rank for image in queue] == list(range(1, len(queue) + 1))
    assert {image.reason for image in queue} == {"typical"} and queue.outlook is None
    assert all(image.suggested is None for image in queue)
    assert len(label(images, number=5)) == 5


def test_with_labels_there_are_suggestions_and_an_outlook(images: Path, tmp_path: Path) -> None:
    queue = label(images, table(tmp_path / "labels.csv", images))
    assert (queue.labelled, queue.waiting, len(queue)) == (24, 12, 12)
    assert {image.suggested for image in queue} <= {"ok", "scratch", "stain"}
    assert all(image.confidence is not None and 1 / 3 <= image.confidence <= 1 for image in queue)
    assert queue.outlook is not None and queue.outlook.sentence.startswith("12 more labels: ")


def test_columns_of_the_data_are_not_read_once_for_each_image(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, column = list[str](), Manifest.column

    def noted(manifest: Manifest, name: str) -> list[Any]:
        read.append(name)
        return column(manifest, name)

    monkeypatch.setattr(Manifest, "column", noted)
    assert label(images, table(tmp_path / "labels.csv", images)).labelled == 24
    assert 0 < read.count("path") < 24 and 0 < read.count("labels") < 24


def test_names_of_files_do_not_matter(images: Path, tmp_path: Path) -> None:
    renamed = {}
    (tmp_path / "flat").mkdir()
    for number, file in enumerate(sorted(images.rglob("*.png"), reverse=True)):
        renamed[f"{number}.png"] = file.relative_to(images).as_posix()
        shutil.copy(file, tmp_path / "flat" / f"{number}.png")
    assert [renamed[image.path] for image in label(tmp_path / "flat")] == [image.path for image in label(images)]


def test_copies_and_errors_are_not_asked_for_and_told(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    labels = table(tmp_path / "labels.csv", images)
    shutil.copy(folder / "ok/000.png", folder / "copy of a labelled one.png")
    shutil.copy(folder / "ok/011.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"no image")
    shutil.copy(folder / "ok/001.png", folder / "twice.png")
    with labels.open("a", encoding="utf-8") as stream:
        stream.write("twice.png,stain\n")
    before = sorted(folder.rglob("*"))
    queue = label(folder, labels)
    asked = {image.path for image in queue}
    assert "copy of a labelled one.png" not in asked and len(asked & {"ok/011.png", "copy.png"}) == 1
    assert queue.duplicates == 2 and queue.labelled == 23
    assert {failed.path for failed in queue.errors} == {"broken.png", "twice.png", "ok/001.png"}
    assert sorted(folder.rglob("*")) == before


def test_nothing_to_label_is_an_empty_queue(images: Path, tmp_path: Path) -> None:
    queue = label(images, table(tmp_path / "labels.csv", images, 36))
    assert len(queue) == queue.waiting == 0 and queue.outlook is None


def test_images_that_are_all_equal_are_asked_for_once(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / f"{number}.png")
    queue = label(tmp_path)
    assert [image.path for image in queue] == ["0.png"] and queue.duplicates == 3


def test_labels_of_one_class_give_no_suggestion(images: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\nok/000.png,ok\nok/001.png,ok\n", encoding="utf-8")
    queue = label(images, tmp_path / "labels.csv", 3)
    assert [image.suggested for image in queue] == [None] * 3 and "2 labels of only one class" in queue.strategy


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, images: Path) -> None:
    with pytest.raises(RecipeError, match="number: 0 is less than 1"):
        label(images, number=0)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 1 image can be read"):
        label(tmp_path)
    shutil.copy(images / "ok/000.png", tmp_path / "a.png")
    shutil.copy(images / "ok/000.png", tmp_path / "b.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png,y\n", encoding="utf-8")
    with pytest.raises(DataError, match="no image to choose from: the 2 images have conflicting labels"):
        label(tmp_path, tmp_path / "t.csv")
