import numpy as np
import pytest

from thaw.evaluation.evaluate import ClassResult, Evaluation
from thaw.metrics import Estimate
from thaw.progress import NullReporter
from thaw.terminal.classes import MATRIX, ROWS, show_class_metrics, show_confusion, show_counts


class Tables(NullReporter):
    def __init__(self) -> None:
        self.shown: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []

    def table(self, title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:  # type: ignore[override]
        self.shown.append((title, header, list(rows)))


def evaluation(classes: int, name: str = "class{}") -> Evaluation:
    """Class k has the recall k / classes; each class is confused with the next one, k times."""
    recalls = [Estimate(index / classes, 0.0, 1.0) for index in range(classes)]
    per_class = tuple(ClassResult(name.format(index), 9, {"recall": recall}) for index, recall in enumerate(recalls))
    confusion = np.diag([9] * classes) + np.roll(np.diag(range(classes)), 1, axis=1)
    return Evaluation(9 * classes, 9 * classes, {}, per_class, tuple(map(tuple, confusion.tolist())), None, (), ())


def test_counts_of_few_classes_are_all_shown_in_their_order() -> None:
    reporter = Tables()
    show_counts("5 images", {"b": {"train": 3}, "a": {"train": 1, "val": 1}}, ("train", "val"), reporter)
    assert reporter.shown == [("5 images", ("class", "train", "val"), [("b", "3", "0"), ("a", "1", "1")])]


def test_of_many_classes_the_smallest_and_the_largest_are_shown() -> None:
    reporter = Tables()
    show_counts("images", {f"class{number}": {"all": number} for number in range(200)}, ("all",), reporter)
    (title, _, rows) = reporter.shown[0]
    assert title == "images; the 10 smallest and the 10 largest"
    assert [row[0] for row in rows] == [f"class{number}" for number in (*range(10), *range(190, 200))]


def test_of_many_classes_the_metrics_of_those_with_the_lowest_recall_are_shown() -> None:
    reporter = Tables()
    show_class_metrics(evaluation(200), reporter)
    (title, _, rows) = reporter.shown[0]
    assert "20 of 200 classes with the lowest recall" in title
    assert [row[0] for row in rows] == [f"class{number}" for number in range(ROWS)]


@pytest.mark.parametrize("classes", [2, MATRIX])
def test_few_classes_have_a_confusion_matrix(classes: int) -> None:
    reporter = Tables()
    show_confusion(evaluation(classes), reporter)
    (_, header, rows) = reporter.shown[0]
    assert len(header) == classes + 1 and rows[1][1 : classes + 1][1] == "9"


def test_of_many_classes_the_most_frequent_confusions_are_listed() -> None:
    reporter = Tables()
    show_confusion(evaluation(200), reporter)
    (title, _, rows) = reporter.shown[0]
    assert title == "Most frequent confusions, 20 of 199"
    assert rows[0] == ("class199", "class0", "199") and len(rows) == ROWS


def test_long_names_are_shortened_in_the_middle() -> None:
    reporter = Tables()
    show_counts("images", {"a" * 100 + "z" * 100: {"all": 1}}, ("all",), reporter)
    name = reporter.shown[0][2][0][0]
    assert len(name) == 40 and name.startswith("aaa") and "…" in name and name.endswith("zzz")
    show_confusion(evaluation(3, "x" * 300 + "{}"), reporter)
    assert all(len(cell) <= 40 for row in reporter.shown[1][2] for cell in row)
