import csv
import io

from thaw.metrics import MetricValues, per_epoch_metrics
from thaw.run_folder.epochs_file import header, read, rows
from thaw.training.history import EpochRecord

VALUES = MetricValues({metric.name: 0.5 for metric in per_epoch_metrics()})
LBFGS = EpochRecord("head", 1, "head", None, 0.5, VALUES, 2.5, penalty=0.1)
TRAINED = EpochRecord("top", 1, "layer4", 1e-3, 0.25, VALUES, 1.5)


def without(column: str) -> str:
    """The table of `TRAINED` without a column."""
    stream, at = io.StringIO(), header().index(column)
    table = [header(), *rows([TRAINED])]
    csv.writer(stream).writerows([*row[:at], *row[at + 1 :]] for row in table)
    return stream.getvalue()


def test_records_are_read_back_from_the_table() -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([header(), *rows([LBFGS, TRAINED])])
    assert read(stream.getvalue()) == (LBFGS, TRAINED)


def test_the_penalty_of_lbfgs_is_not_a_learning_rate() -> None:
    (row,) = rows([LBFGS])
    cells = dict(zip(header(), row, strict=True))
    assert cells["lr"] == "" and cells["penalty"] == "0.1"


def test_a_table_without_the_penalty_column_is_read() -> None:
    assert read(without("penalty")) == (TRAINED,)


def test_a_table_from_before_a_metric_existed_is_read_and_written() -> None:
    (old,) = read(without("val_macro_f1"))
    assert "macro_f1" not in old.val.by_name and old.val["accuracy"] == 0.5
    (row,) = rows([old])
    assert len(row) == len(header()) and row[header().index("val_macro_f1")] == ""
