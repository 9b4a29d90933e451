"""Tables of classes on the console: a limited number of rows, and long names shortened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from thaw.evaluation.evaluate import ClassResult, Evaluation
from thaw.formats import shortened
from thaw.metrics import CLASS_METRICS, Metric
from thaw.progress import Reporter
from thaw.terminal.metric_text import estimate_text

ROWS = 20
"""Most rows of a table with one row per class."""

MATRIX = 12
"""Most classes of a confusion matrix; of more, the most frequent confusions are listed."""

_NARROW = 80
"""Columns of a usual terminal; where the names of the classes take more, columns of a confusion matrix have numbers."""


def show_counts(title: str, counts: Mapping[str, Mapping[str, int]], splits: Sequence[str], reporter: Reporter) -> None:
    """Images of each class in each split; of many classes, the smallest and the largest ones."""
    names = list(counts)
    if len(names) > ROWS:
        by_size = sorted(names, key=lambda name: sum(counts[name].values()))
        names = [*by_size[: ROWS // 2], *by_size[-ROWS // 2 :]]
        title = f"{title}; the {ROWS // 2} smallest and the {ROWS // 2} largest"
    rows = [(shortened(name), *(f"{counts[name].get(split, 0):,}" for split in splits)) for name in names]
    reporter.table(title, ("class", *splits), rows)


def show_class_metrics(result: Evaluation, reporter: Reporter) -> None:
    """The metrics of each class; of many classes, those with the lowest recall."""
    shown, title = result.per_class, ""
    if len(shown) > ROWS:
        shown = tuple(sorted(shown, key=_recall)[:ROWS])
        title = f"The {ROWS} of {len(result.per_class)} classes with the lowest recall; --out FILE writes all"
    header = ("class", "images", *(metric.title for metric in CLASS_METRICS.values()))
    rows = [(shortened(name), *rest) for name, *rest in class_rows(replace(result, per_class=shown), CLASS_METRICS)]
    reporter.table(title, header, rows)


def class_rows(result: Evaluation, metrics: Mapping[str, Metric]) -> list[tuple[str, ...]]:
    """One row per class: its name, its number of images and its estimate of each metric."""
    return [
        (
            item.name,
            f"{item.images}",
            *(estimate_text(item.metrics.get(name), metric) for name, metric in metrics.items()),
        )
        for item in result.per_class
    ]


def show_confusion(result: Evaluation, reporter: Reporter) -> None:
    """The confusion matrix; of many classes, the most frequent confusions."""
    names = [shortened(item.name) for item in result.per_class]
    if not result.confusion:
        return
    if len(names) <= MATRIX:
        header: Sequence[str] = names
        if len(max(names, key=len)) + sum(len(name) + 1 for name in names) > _NARROW:
            header = [f"{number}" for number, _ in enumerate(names, start=1)]
            names = [shortened(f"{number} {item.name}") for number, item in zip(header, result.per_class, strict=True)]
        counts = [(name, *map(str, row)) for name, row in zip(names, result.confusion, strict=True)]
        reporter.table("Confusion matrix, true class in rows, predicted class in columns", ("", *header), counts)
        return
    confusions = sorted(
        (-images, true, predicted)
        for true, row in enumerate(result.confusion)
        for predicted, images in enumerate(row)
        if images and true != predicted
    )
    rows = [(names[true], names[predicted], f"{-images:,}") for images, true, predicted in confusions[:ROWS]]
    title = f"Most frequent confusions, {len(rows):,} of {len(confusions):,}"
    reporter.table(title, ("true class", "predicted class", "images"), rows)


def _recall(item: ClassResult) -> tuple[bool, float]:
    """Classes without images, which have no recall, come last."""
    estimate = item.metrics.get("recall")
    return (estimate is None, 0.0 if estimate is None else estimate.value)
