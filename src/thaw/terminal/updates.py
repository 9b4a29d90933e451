"""The outcome of an update on the console: each class before and after."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.evaluation.class_changes import ClassChange
from thaw.formats import percent, shortened
from thaw.metrics import METRICS
from thaw.progress import Reporter
from thaw.run_folder import UpdateFile
from thaw.terminal.metric_text import difference_text

HEADER = ("class", "images", "recognised before", "after", "difference, 95% interval", "")


def show_changes(update: UpdateFile, reporter: Reporter) -> None:
    """One table for the old images, on which the update is judged, and one for the new ones."""
    reporter.table("Old classes on the run's own validation and test images", HEADER, change_rows(update.old))
    if update.new:
        reporter.table("New images of validation and test", HEADER, change_rows(update.new))


def change_rows(changes: Sequence[ClassChange]) -> list[tuple[str, ...]]:
    """One row per class, as text."""
    return [
        (
            shortened(change.name) if change.name else "all",
            f"{change.images:,}",
            "new" if change.before is None else percent(change.before),
            percent(change.after),
            difference_text(change.difference, METRICS["accuracy"]) if change.difference else "-",
            _remark(change),
        )
        for change in changes
    ]


def _remark(change: ClassChange) -> str:
    """How a fall is judged."""
    if change.difference is None or change.p_value is None or change.difference.value >= 0:
        return ""
    return f"{'falls' if change.falls else 'within noise'}, p = {change.p_value:.2g}"
