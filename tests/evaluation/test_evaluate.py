from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.metrics import wilson
from thaw.data.dataset import Dataset
from thaw.errors import DataError
from thaw.pipeline import evaluate, load
from thaw.run_folder import RunFolder


def test_the_interval_is_wilson_s() -> None:
    low, high = wilson(0.9, 100)
    assert (low, high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))


@given(st.integers(1, 2000), st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(count: int, fraction: float) -> None:
    low, high = wilson(fraction, count)
    assert 0 <= low <= fraction + 1e-9 and fraction - 1e-9 <= high <= 1


def test_confusion_and_classes_agree_with_the_accuracy(trained: RunFolder, images: Path) -> None:
    classifier = load(trained.path)
    result = evaluate(classifier, Dataset.open(images))
    right = sum(result.confusion[index][index] for index in range(3))
    assert result.overall.accuracy.value == pytest.approx(right / 36)
    assert [item.name for item in result.per_class] == list(classifier.classes)
    for index, item in enumerate(result.per_class):
        assert item.images == sum(result.confusion[index]) == 12
        assert item.metrics.recall and item.metrics.recall.value == pytest.approx(result.confusion[index][index] / 12)


def test_a_set_that_lacks_a_class_keeps_the_order_of_the_classifier(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    for name in ("scratch", "stain"):
        (tmp_path / name).symlink_to(images / name)
    classifier = load(trained.path)
    whole, part = evaluate(classifier, Dataset.open(images)), evaluate(classifier, Dataset.open(tmp_path, "multiclass"))
    assert part.images == 24 and part.confusion[1:] == whole.confusion[1:] and not any(part.confusion[0])


def test_a_class_that_the_classifier_does_not_know_is_named(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    for name in ("scratch", "stain"):
        (tmp_path / f"new-{name}").symlink_to(images / name)
    with pytest.raises(DataError, match="does not know new-scratch, new-stain"):
        evaluate(load(trained.path), Dataset.open(tmp_path, "multiclass"))
