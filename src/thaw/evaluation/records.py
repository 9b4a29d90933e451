"""predictions.parquet: what the finished classifier said of every image of validation and test, beside the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thaw import atomic
from thaw.classifier.classifier import Classifier
from thaw.classifier.neighbours import nearest
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.evaluation.evaluate import score
from thaw.evaluation.finalize import SplitOutputs
from thaw.evaluation.metrics import Scored
from thaw.recipe import Task

NEAREST = 3
"""Training images that are named beside each prediction, the most alike first."""


@dataclass(frozen=True)
class Records:
    """Predictions of one run on one split.

    paths: of N images. classes: in the order of the columns of `scored`. nearest: paths of the training images that
    are most alike, for each image. unsure, unlike: (N,) bool, an image for a person because it has not one candidate,
    or because it is unlike those of training; distance: (N,) from them, 0..2.
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
        """(N,) bool: a person should look."""
        return np.asarray(self.ambiguous | self.out_of_distribution)


def write_records(classifier: Classifier, manifest: Manifest, sets: SplitOutputs, file: Path) -> None:
    """Write one row an image: path, split, labels, given labels, group, the nearest training images, distance to them,
    whether it is unlike them or has not one candidate, and each probability.
    """
    tables, paths = [], manifest.column("path")
    for split, outputs in sets.judged.items():
        rows, groups = manifest.indices(split), sets.groups[split]
        scored = score(classifier, outputs.probabilities, outputs.targets)
        columns = {
            "path": pa.array([paths[row] for row in rows]),
            "split": pa.array([split] * len(rows)),
            "labels": _labels(scored.truth, classifier.classes),
            "given": _labels(scored.predicted, classifier.classes),
            "group": pa.array(np.arange(len(rows)) if groups is None else groups, pa.int64()),
        }
        near, _ = nearest(outputs.features, sets.train.features, NEAREST)
        trained = sets.train_rows[near]
        columns["nearest"] = pa.array([[paths[row] for row in some] for some in trained], pa.list_(pa.string()))
        if classifier.review_policy:
            columns["ambiguous"] = pa.array(classifier.review_policy.is_ambiguous(outputs.probabilities))
            distance = classifier.review_policy.distances(outputs.features)
            columns["distance"] = pa.array(distance, pa.float32())
            columns["out_of_distribution"] = pa.array(classifier.review_policy.exceeds_max_distance(distance))
        for index, name in enumerate(classifier.classes):
            columns[f"p_{name}"] = pa.array(outputs.probabilities[:, index], pa.float32())
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables).replace_schema_metadata({"task": classifier.task})
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    atomic.write_bytes(file, stream.getvalue().to_pybytes())


def read_records(file: Path, split: str) -> Records:
    """What `write_records` wrote of one split; raises `DataError` for something else or an empty split."""
    try:
        table = pq.read_table(pa.BufferReader(file.read_bytes()))
        task: Task = table.schema.metadata[b"task"].decode()
        table = table.filter(pa.compute.equal(table.column("split"), split))
        classes = tuple(name.removeprefix("p_") for name in table.column_names if name.startswith("p_"))
        probabilities = np.stack([table.column(f"p_{name}").to_numpy() for name in classes], axis=1)
        labels, given = (_flags(table.column(name).to_pylist(), classes) for name in ("labels", "given"))
        near = tuple(tuple(paths) for paths in table.column("nearest").to_pylist())
        ambiguous, out_of_distribution, distance = (
            _values(table, *names)
            for names in (("ambiguous", "unsure"), ("out_of_distribution", "unlike"), ("distance",))
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read as the predictions of a run ({error})") from error
    if not table.num_rows:
        raise DataError(f"{file}: has no predictions on {split}")
    groups = table.column("group").to_numpy()
    together = groups if len(np.unique(groups)) < len(groups) else None
    return Records(
        paths=tuple(table.column("path").to_pylist()),
        classes=classes,
        scored=Scored(task, probabilities, labels, given, together),
        nearest=near,
        ambiguous=ambiguous.astype(bool),
        out_of_distribution=out_of_distribution.astype(bool),
        distance=distance,
    )


def _labels(flags: np.ndarray, classes: tuple[str, ...]) -> pa.Array:
    return pa.array([[classes[index] for index in np.flatnonzero(row)] for row in flags], pa.list_(pa.string()))


def _values(table: pa.Table, *names: str) -> np.ndarray:
    """A column (N,) under the first of its names, newest first, that is there; zeros where none is."""
    found = [name for name in names if name in table.column_names]
    return table.column(found[0]).to_numpy() if found else np.zeros(table.num_rows)


def _flags(labels: list[list[str]], classes: tuple[str, ...]) -> np.ndarray:
    return np.array([[name in names for name in classes] for names in labels], dtype=bool).reshape(-1, len(classes))
