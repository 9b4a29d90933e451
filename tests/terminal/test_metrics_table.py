import csv
import io

from thaw.metrics import MetricValues, per_epoch_metrics
from thaw.terminal.run_summary import METRICS_HEADER, metrics_row, read_metrics
from thaw.training.history import EpochRecord

METRICS = MetricValues({metric.name: 0.25 for metric in per_epoch_metrics()})
SOLVED = EpochRecord("head", 1, "head", None, 0.5, METRICS, 2.5, penalty=0.1)
TRAINED = EpochRecord("top", 1, "layer4", 1e-3, 0.25, METRICS, 1.5)


def table(header: tuple[str, ...], *rows: tuple[object, ...]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    return stream.getvalue()


def test_records_are_read_back_from_the_table() -> None:
    assert read_metrics(table(METRICS_HEADER, metrics_row(SOLVED), metrics_row(TRAINED))) == (SOLVED, TRAINED)


def test_a_table_without_the_penalty_column_is_read() -> None:
    at = METRICS_HEADER.index("penalty")
    header, row = METRICS_HEADER[:at] + METRICS_HEADER[at + 1 :], metrics_row(TRAINED)
    assert read_metrics(table(header, row[:at] + row[at + 1 :])) == (TRAINED,)
