"""predictions.parquet: the predictions of a finished classifier on every validation and test image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thaw import atomic, parquet
from thaw.classifier.classifier import Classifier
from thaw.classifier.neighbours import nearest
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.evaluation.evaluate import score
from thaw.evaluation.finalize import SplitOutputs
from thaw.metrics import Scored
from thaw.recipe import Task

NEAREST = 3
"""Number of nearest training images kept with each prediction."""

_NAMES_0_1 = {"given": "predicted", "unsure": "ambiguous", "unlike": "out_of_distribution"}
"""Columns of release 0.1, and their names today."""


@dataclass(frozen=True)
class Records:
    """Predictions of one run on the N images of one split.

    Attributes:
        paths: Of the images, relative to the data set where possible.
        classes: In the order of the columns of `scored`.
        scored: Probabilities, true and predicted labels, and groups.
        nearest: Paths of the nearest training images of each image, nearest first.
        ambiguous: (N,) bool, flagged because the label is not the only candidate class.
        out_of_distribution: (N,) bool, flagged because the features are far from those of training.
        distance: (N,) cosine distance to the nearest training images, 0..2.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    scored: Scored
    nearest: tuple[tuple[str, ...], ...]
    ambiguous: np.ndarray
    out_of_distribution: np.ndarray
    distance: np.ndarray

    @property
    def flagged(self) -> np.ndarray:
        """(N,) bool: flagged for review."""
        return np.asarray(self.ambiguous | self.out_of_distribution)


def write_records(classifier: Classifier, manifest: Manifest, outputs: SplitOutputs, file: Path) -> None:
    """Write one row per validation and test image.

    Columns: path, split, labels, predicted, group, nearest training images, ambiguous, distance, out_of_distribution,
    and `p_CLASS` for each class.
    """
    paths = manifest.column("path")
    tables = []
    for split, evaluated in outputs.evaluated.items():
        rows, groups = manifest.indices(split), outputs.groups[split]
        scored = score(classifier, evaluated.probabilities, evaluated.targets)
        neighbours, _ = nearest(evaluated.features, outputs.train.features, NEAREST)
        nearest_paths = [[paths[row] for row in near] for near in outputs.train_rows[neighbours]]
        columns = {
            "path": pa.array([paths[row] for row in rows]),
            "split": pa.array([split] * len(rows)),
            "labels": _labels(scored.truth, classifier.classes),
            "predicted": _labels(scored.predicted, classifier.classes),
            "group": pa.array(np.arange(len(rows)) if groups is None else groups, pa.int64()),
            "nearest": pa.array(nearest_paths, pa.list_(pa.string())),
        }
        if policy := classifier.review_policy:
            distance = policy.distances(evaluated.features)
            columns["ambiguous"] = pa.array(policy.is_ambiguous(evaluated.probabilities, scored.predicted))
            columns["distance"] = pa.array(distance, pa.float32())
            columns["out_of_distribution"] = pa.array(policy.exceeds_max_distance(distance))
        for index, name in enumerate(classifier.classes):
            columns[f"p_{name}"] = pa.array(evaluated.probabilities[:, index], pa.float32())
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables).replace_schema_metadata({"task": classifier.task})
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    atomic.write_bytes(file, stream.getvalue().to_pybytes())


def read_records(file: Path, split: str) -> Records:
    """Read the predictions on one split, of this or an earlier release.

    Raises:
        DataError: If the file cannot be read, or has no predictions on the split.
    """
    try:
        table = parquet.read_table(file)
        task: Task = table.schema.metadata[b"task"].decode()
        table = table.rename_columns([_NAMES_0_1.get(name, name) for name in table.column_names])
        table = table.filter(pa.compute.equal(table.column("split"), split))
        classes = tuple(name.removeprefix("p_") for name in table.column_names if name.startswith("p_"))
        probabilities = np.stack([table.column(f"p_{name}").to_numpy() for name in classes], axis=1)
        truth, predicted = (_flags(table.column(name).to_pylist(), classes) for name in ("labels", "predicted"))
        nearest_paths = tuple(tuple(paths) for paths in table.column("nearest").to_pylist())
        ambiguous, out_of_distribution, distance = (
            _column_or_zeros(table, name) for name in ("ambiguous", "out_of_distribution", "distance")
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read as the predictions of a run ({error})") from error
    if not table.num_rows:
        raise DataError(f"{file}: has no predictions on {split}")
    groups = table.column("group").to_numpy()
    is_grouped = len(np.unique(groups)) < len(groups)
    return Records(
        paths=tuple(table.column("path").to_pylist()),
        classes=classes,
        scored=Scored(task, probabilities, truth, predicted, groups if is_grouped else None),
        nearest=nearest_paths,
        ambiguous=ambiguous.astype(bool),
        out_of_distribution=out_of_distribution.astype(bool),
        distance=distance,
    )


def _labels(flags: np.ndarray, classes: tuple[str, ...]) -> pa.Array:
    return pa.array([[classes[index] for index in np.flatnonzero(row)] for row in flags], pa.list_(pa.string()))


def _flags(labels: list[list[str]], classes: tuple[str, ...]) -> np.ndarray:
    index_of = {name: index for index, name in enumerate(classes)}
    flags = np.zeros((len(labels), len(classes)), dtype=bool)
    for row, names in enumerate(labels):
        flags[row, [index_of[name] for name in names if name in index_of]] = True
    return flags


def _column_or_zeros(table: pa.Table, name: str) -> np.ndarray:
    """A column (N,), or zeros for a classifier without a review policy."""
    return table.column(name).to_numpy() if name in table.column_names else np.zeros(table.num_rows)
