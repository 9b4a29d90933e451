import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thaw.data.dataset import Dataset
from thaw.data.prepare import LabelledRows
from thaw.planning.second_split import FEW_VALIDATION_IMAGES, second_split
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.trial import Trial, begin


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
    second, first = second_split(grouped.inputs, grouped.prepared, 0), grouped.inputs
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
    assert second_split(replace(grouped.inputs, val=many), grouped.prepared, 0) is None


def test_there_is_no_second_split_where_a_class_has_too_few_images(grouped: Trial) -> None:
    train_images = grouped.inputs.train
    is_first = train_images.targets == 0
    chosen = np.append(np.flatnonzero(~is_first), np.flatnonzero(is_first)[0])
    few = LabelledRows(train_images.rows[chosen], train_images.targets[chosen])
    assert second_split(replace(grouped.inputs, train=few), grouped.prepared, 0) is None
