from pathlib import Path

import pytest

from thaw.data.dataset import Dataset
from thaw.errors import DataError
from thaw.pipeline import evaluate, load
from thaw.run_folder import RunFolder


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


def test_an_unknown_class_is_named(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    for name in ("scratch", "stain"):
        (tmp_path / f"new-{name}").symlink_to(images / name)
    with pytest.raises(DataError, match="does not know new-scratch, new-stain"):
        evaluate(load(trained.path), Dataset.open(tmp_path, "multiclass"))
