"""metrics.csv: one row per epoch, with its metrics on validation."""

from __future__ import annotations

import csv
from collections.abc import Iterable

from thaw.metrics import MetricValues, per_epoch_metrics
from thaw.training.history import EpochRecord

_VAL = "val_"


def header() -> tuple[str, ...]:
    """The columns: `penalty` is empty but for L-BFGS, for which `lr` is."""
    metrics = (f"{_VAL}{metric.name}" for metric in per_epoch_metrics())
    return ("phase", "epoch", "cut", "lr", "penalty", "train_loss", *metrics, "seconds")


def rows(records: Iterable[EpochRecord]) -> list[tuple[object, ...]]:
    """The records as rows under `header`."""
    return [tuple(_cells(record).get(column, "") for column in header()) for record in records]


def read(text: str) -> tuple[EpochRecord, ...]:
    """The records of a metrics.csv; those of release 0.1 have no column `penalty`."""
    return tuple(
        EpochRecord(
            phase=row["phase"],
            epoch=int(row["epoch"]),
            cut=row["cut"],
            lr=_optional(row["lr"]),
            penalty=_optional(row.get("penalty")),
            train_loss=float(row["train_loss"]),
            val=MetricValues(
                {name.removeprefix(_VAL): float(row[name]) for name in row if name.startswith(_VAL) and row[name]}
            ),
            seconds=float(row["seconds"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def _cells(record: EpochRecord) -> dict[str, object]:
    numbers = {"lr": record.lr, "penalty": record.penalty, "train_loss": record.train_loss}
    numbers |= {f"{_VAL}{name}": value for name, value in record.val.by_name.items()}
    return {
        "phase": record.phase,
        "epoch": record.epoch,
        "cut": record.cut,
        **{name: f"{value:.6g}" for name, value in numbers.items() if value is not None},
        "seconds": f"{record.seconds:.3f}",
    }


def _optional(cell: str | None) -> float | None:
    return float(cell) if cell else None
