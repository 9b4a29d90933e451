"""The table of a data set: one row per image with labels, split, group and facts about the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thaw import atomic, parquet
from thaw.errors import DataError
from thaw.recipe import Task
from thaw.remote import is_remote, local_path, shown

SPLITS = ("train", "val", "test")
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("group", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
"""status: "ok", or "error" with a reason; null before decoding. split: one of `SPLITS`, or null."""

_METADATA = b"thaw"


@dataclass(frozen=True)
class Manifest:
    """The rows of a data set, and its classes in their fixed order.

    Attributes:
        table: An Arrow table with `SCHEMA`; paths are relative to `root`, with forward slashes, or absolute.
        classes: Every label in the table is one of them.
        task: multiclass, binary or multilabel.
        root: The folder of the data set.
        ignored: (suffix, count) of files that are not images.
        grouping: How Thaw found the groups in the column `group`; empty for those that the data or a setting gives.
    """

    table: pa.Table
    classes: tuple[str, ...]
    task: Task
    root: Path
    ignored: tuple[tuple[str, int], ...] = ()
    grouping: str = ""

    def __len__(self) -> int:
        return self.table.num_rows

    def file(self, row: int) -> Path:
        """The image file of a row."""
        return self.root / self.table.column("path")[row].as_py()

    def files(self) -> list[Path]:
        """The image file of each row."""
        return [self.root / path for path in self.table.column("path").to_pylist()]

    def column(self, name: str) -> list[Any]:
        """The values of a column, one per row."""
        return self.table.column(name).to_pylist()

    def targets(self) -> np.ndarray:
        """Class indices (N,) int64, or for multilabel (N, C) float32 of 0 and 1."""
        labels = pa.concat_arrays(self.table.column("labels").chunks or [pa.array([], SCHEMA.field("labels").type)])
        indices = pc.index_in(labels.flatten(), pa.array(self.classes, pa.string())).to_numpy()
        if self.task != "multilabel":
            return indices.astype(np.int64)
        targets = np.zeros((len(self), len(self.classes)), dtype=np.float32)
        targets[pc.list_parent_indices(labels).to_numpy(), indices] = 1.0
        return targets

    def indices(self, split: str) -> np.ndarray:
        """Readable rows of a split, (N,) int64."""
        in_split = pc.equal(self.table.column("split"), split)
        readable = pc.equal(self.table.column("status"), "ok")
        return np.flatnonzero(pc.and_(in_split, readable).fill_null(False).to_numpy())

    def counts(self) -> dict[str, dict[str, int]]:
        """Readable images of each class in each split: {class: {split: images}}."""
        targets = self.targets()
        classes = np.arange(len(self.classes))
        present = targets > 0.5 if self.task == "multilabel" else targets[:, None] == classes
        per_split = {split: present[self.indices(split)].sum(axis=0) for split in SPLITS}
        return {
            name: {split: int(images[index]) for split, images in per_split.items()}
            for index, name in enumerate(self.classes)
        }

    @property
    def readable(self) -> int:
        """Number of readable images."""
        return self.column("status").count("ok")

    def errors(self) -> list[tuple[str, str]]:
        """(path, reason) of each unreadable image."""
        unreadable = self.table.filter(pc.equal(self.table.column("status"), "error"))
        return list(zip(unreadable.column("path").to_pylist(), unreadable.column("reason").to_pylist(), strict=True))

    def with_columns(self, columns: Mapping[str, Sequence[Any] | pa.ChunkedArray]) -> Manifest:
        """A copy with some columns replaced."""
        table = self.table
        for name, values in columns.items():
            field = SCHEMA.field(name)
            array = pa.array(values, field.type) if isinstance(values, Sequence) else values.cast(field.type)
            table = table.set_column(SCHEMA.get_field_index(name), field, array)
        return replace(self, table=table)

    def write(self, file: Path) -> None:
        """Write the manifest as one Parquet file, atomically."""
        facts = {
            "classes": self.classes,
            "task": self.task,
            "root": shown(self.root),
            "ignored": self.ignored,
            "grouping": self.grouping,
        }
        stream = pa.BufferOutputStream()
        pq.write_table(self.table.replace_schema_metadata({_METADATA: json.dumps(facts)}), stream)
        atomic.write_bytes(file, stream.getvalue().to_pybytes())

    @classmethod
    def read(cls, file: Path, columns: Sequence[str] = SCHEMA.names) -> Manifest:
        """Read a file written by `write`.

        Args:
            file: The file.
            columns: Those that are read; all others are null.

        Raises:
            DataError: It is damaged or something else.
        """
        with _readable(file):
            table = parquet.read_table(file, columns)
            facts = json.loads(table.schema.metadata[_METADATA])
            nulls = {name: pa.nulls(len(table)) for name in SCHEMA.names if name not in columns}
            values = [nulls[name] if name in nulls else table.column(name) for name in SCHEMA.names]
            return cls(
                table=pa.table([value.cast(field.type) for value, field in zip(values, SCHEMA, strict=True)], SCHEMA),
                classes=tuple(facts["classes"]),
                task=facts["task"],
                root=_root(facts),
                ignored=tuple((suffix, count) for suffix, count in facts["ignored"]),
                grouping=str(facts.get("grouping", "")),
            )

    @classmethod
    def read_root(cls, file: Path) -> Path:
        """The root of a file written by `write`, without its rows; raises `DataError` as `read`."""
        with _readable(file):
            return _root(json.loads(parquet.read_metadata(file)[_METADATA]))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """A file that is damaged or something else is a `DataError` that names it."""
    try:
        yield
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read as a manifest ({error}); Thaw writes this file during a run"
        ) from error


def _root(facts: Mapping[str, Any]) -> Path:
    return local_path(facts["root"]) if is_remote(facts["root"]) else Path(facts["root"])


def new_table(
    paths: Sequence[str],
    labels: Sequence[Sequence[str]],
    splits: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
) -> pa.Table:
    """A table with `SCHEMA` for images that are not decoded yet; columns that are not given are null."""
    given = {"path": paths, "labels": labels, "split": splits, "group": groups}
    nulls = [None] * len(paths)
    return pa.table([pa.array(given.get(field.name) or nulls, field.type) for field in SCHEMA], schema=SCHEMA)
