import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tests.exports.classifiers import random_classifier
from tests.metrics.samples import scored
from thaw.classifier.classifier import Classifier
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError
from thaw.evaluation import evaluate as evaluating
from thaw.evaluation.evaluate import Evaluation, summarise
from thaw.pipeline import evaluate, load
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder
from thaw.terminal.results import show_evaluation


class Listening(NullReporter):
    """Keeps lines and titles of tables."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.titles: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        self.titles.append(title)


def test_confusion_matrix_recall_and_accuracy_agree(trained: RunFolder, images: Path) -> None:
    classifier = load(trained.path)
    result = evaluate(classifier, Dataset.open(images))
    correct = sum(result.confusion[index][index] for index in range(3))
    assert result.overall["accuracy"] and result.overall["accuracy"].value == pytest.approx(correct / 36)
    assert [item.name for item in result.per_class] == list(classifier.classes)
    for index, item in enumerate(result.per_class):
        assert item.images == sum(result.confusion[index]) == 12
        recall = item.metrics["recall"]
        assert recall and recall.value == pytest.approx(result.confusion[index][index] / 12)


def test_a_set_without_one_class_keeps_the_class_order_of_the_classifier(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    for name in ("scratch", "stain"):
        (tmp_path / name).symlink_to(images / name)
    classifier = load(trained.path)
    whole, part = evaluate(classifier, Dataset.open(images)), evaluate(classifier, Dataset.open(tmp_path, "multiclass"))
    assert part.images == 24 and part.confusion[1:] == whole.confusion[1:] and not any(part.confusion[0])


def test_images_of_the_run_are_recognised_by_their_bytes(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(trained.manifest)
    for split in ("train", "val", "test"):
        row = int(manifest.indices(split)[0])
        (label,) = manifest.column("labels")[row]
        (tmp_path / label).mkdir(exist_ok=True)
        shutil.copy(manifest.file(row), tmp_path / label / f"renamed {split}.png")
    write_surfaces(tmp_path, images_per_class=1, size=64, seed=7, classes=("ok",))
    shown = Listening()
    for model in (trained.path, trained.model):
        result = evaluate(model, tmp_path)
        assert result.images == 4 and result.images_of_run == {"train": 1, "val": 1, "test": 1}
        assert Evaluation.from_json(result.to_json()) == result
    show_evaluation(result, shown)
    assert "1 was trained on and 1 was validated on" in shown.titles[0]
    assert shown.lines[-1].startswith("WARNING: of these images, 1 was trained on and 1 was validated on (equal bytes)")


def test_new_images_give_no_warning(trained: RunFolder, tmp_path: Path) -> None:
    write_surfaces(tmp_path, images_per_class=1, size=64, seed=7, classes=("ok", "scratch", "stain"))
    result, shown = evaluate(trained.path, tmp_path), Listening()
    show_evaluation(result, shown)
    assert result.images_of_run == {} and not any("trained on" in line for line in (*shown.lines, *shown.titles))


def test_without_its_run_it_is_not_known_what_a_classifier_was_trained_on(trained: RunFolder, images: Path) -> None:
    result, shown = evaluate(load(trained.path), images), Listening()
    show_evaluation(result, shown)
    assert result.images_of_run is None and "is not known; give its run" in shown.lines[-1]


def test_what_is_remarkable_about_the_images_is_in_the_result_as_evaluation_is_silent(
    trained: RunFolder, tmp_path: Path
) -> None:
    images, run = tmp_path / "images", RunFolder(tmp_path / "run")
    write_surfaces(images, images_per_class=1, size=64, seed=7, classes=("ok", "scratch", "stain"))
    silent = evaluate(trained.path, images)
    assert silent.notes == () and "notes" not in silent.to_json()
    shutil.copytree(trained.path, run.path)
    plan = json.loads(run.plan.read_text())
    plan["requested"]["split"]["group_by"] = r"(part\d+)_"
    run.plan.write_text(json.dumps(plan))
    shown = Listening()
    result = evaluate(run.path, images, shown)
    assert result.notes == tuple(shown.lines) and result.notes[0].startswith("images count as independent: ")
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))).notes == result.notes


def test_an_unknown_class_is_named(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    for name in ("scratch", "stain"):
        (tmp_path / f"new-{name}").symlink_to(images / name)
    with pytest.raises(DataError, match="does not know new-scratch, new-stain"):
        evaluate(load(trained.path), Dataset.open(tmp_path, "multiclass"))


@pytest.mark.parametrize("classes", [3, 100, 101])
def test_evaluations_survive_json_and_only_those_of_many_classes_list_the_cells_with_images(classes: int) -> None:
    sample = scored(150, classes, 0)
    result = summarise(_with_classes(classes), sample, None, ())
    written = json.loads(json.dumps(result.to_json()))
    assert Evaluation.from_json(written) == result
    truth, predicted = sample.truth.argmax(axis=1), sample.predicted.argmax(axis=1)
    expected = confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    assert [list(row) for row in result.confusion] == expected
    if classes <= 100:
        assert written["confusion"] == expected
    else:
        assert len(written["confusion"]["cells"]) <= 150


def test_the_confusions_of_a_thousand_classes_are_those_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = 1_000
    without_metrics: Any = ({}, ({},) * classes)
    monkeypatch.setattr(evaluating, "overall_and_per_class", lambda _: without_metrics)
    sample = scored(8_000, classes, 0)
    expected = np.zeros((classes, classes), int)
    np.add.at(expected, (sample.truth.argmax(axis=1), sample.predicted.argmax(axis=1)), 1)
    result = summarise(_with_classes(classes), sample, None, ())
    np.testing.assert_array_equal(result.confusion, expected)


def _with_classes(classes: int) -> Classifier:
    """A classifier with so many classes, which is not asked for predictions."""
    classifier = random_classifier()
    classifier.classes = tuple(f"class {index}" for index in range(classes))
    return classifier
