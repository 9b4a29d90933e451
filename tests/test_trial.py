"""A trial is begun, trained and finished by separate calls, so that a search can stop before the last."""

import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thaw.data.dataset import Dataset
from thaw.data.prepare import LabelledRows
from thaw.pipeline import load, predict
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run import finish
from thaw.training.history import best_index
from thaw.trial import FEW_VALIDATION_IMAGES, TrainingResult, Trial, begin, second_split, train


def best_accuracy(trial: Trial, result: TrainingResult) -> float:
    best = best_index(result.records, trial.recipe.monitor)
    assert best is not None
    return result.records[best].val["accuracy"]


def test_trials_are_compared_and_only_the_best_is_finished(images: Path, quick: Recipe, tmp_path: Path) -> None:
    dataset, quiet = Dataset.open(images), NullReporter()
    head = quick.phases[0]
    trained: list[tuple[Trial, TrainingResult]] = []
    for lr in (1e-5, 1e-2):
        recipe = quick.model_copy(update={"phases": (head.model_copy(update={"lr": lr}),)})
        trial = begin(dataset, recipe, tmp_path, quiet)
        trained.append((trial, train(trial, quiet)))
    for trial, result in trained:
        folder = trial.folder
        assert folder.metrics.is_file() and len(result.records) == head.epochs
        assert not any(file.exists() for file in (folder.model, folder.report, folder.evaluation, folder.predictions))
    other, best = sorted(trained, key=lambda pair: best_accuracy(*pair))
    finish(*best, time.perf_counter(), quiet)
    assert best[0].folder.is_finished and best[0].folder.report.is_file() and not other[0].folder.model.exists()
    (prediction,) = predict(best[0].folder.path, [next((images / "ok").iterdir())])
    assert prediction.status == "ok" and load(best[0].folder.path).classes == dataset.classes


@pytest.fixture
def grouped(images: Path, quick: Recipe, tmp_path: Path) -> Trial:
    """A trial on images in groups of two."""
    table = tmp_path / "grouped.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "group"])
        for folder in sorted(path for path in images.iterdir() if path.is_dir()):
            for number, file in enumerate(sorted(folder.glob("*.png"))):
                writer.writerow([file, folder.name, f"{folder.name} {number // 2}"])
    return begin(Dataset.open(table), quick, tmp_path / "runs", NullReporter())


def test_the_second_split_holds_out_other_whole_groups_and_trains_on_the_first_validation_set(grouped: Trial) -> None:
    second, first = second_split(grouped), grouped.inputs
    assert second is not None and second.val_groups is not None
    inputs = second.sources_of.__self__  # type: ignore[attr-defined]
    train_rows, val_rows = set(inputs.train.rows.tolist()), set(inputs.val.rows.tolist())
    assert not train_rows & val_rows and not val_rows & set(first.val.rows.tolist())
    assert train_rows | val_rows == set(first.train.rows.tolist()) | set(first.val.rows.tolist())
    assert 0.5 <= len(val_rows) / len(first.val.rows) <= 2 and second.val_images == len(val_rows)
    names = grouped.prepared.manifest.column("group")
    held_out = [names[row] for row in inputs.val.rows]
    assert not set(held_out) & {names[row] for row in train_rows}
    assert len(np.unique(second.val_groups)) == len(set(held_out)) == len(held_out) / 2
    targets = grouped.prepared.manifest.targets()
    for labelled in (inputs.train, inputs.val):
        assert (labelled.targets == targets[labelled.rows]).all()


def test_there_is_no_second_split_of_many_validation_images(grouped: Trial) -> None:
    val = grouped.inputs.val
    many = LabelledRows(np.resize(val.rows, FEW_VALIDATION_IMAGES), np.resize(val.targets, FEW_VALIDATION_IMAGES))
    assert second_split(replace(grouped, inputs=replace(grouped.inputs, val=many))) is None


def test_there_is_no_second_split_where_a_class_has_too_few_images(grouped: Trial) -> None:
    train_images = grouped.inputs.train
    is_first = train_images.targets == 0
    chosen = np.append(np.flatnonzero(~is_first), np.flatnonzero(is_first)[0])
    few = LabelledRows(train_images.rows[chosen], train_images.targets[chosen])
    assert second_split(replace(grouped, inputs=replace(grouped.inputs, train=few))) is None
