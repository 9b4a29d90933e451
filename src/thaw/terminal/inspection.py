"""What an inspection found, on the console."""

from __future__ import annotations

from thaw.formats import count, percent, shortened
from thaw.inspection.findings import findings
from thaw.inspection.inspect import Inspection
from thaw.progress import Reporter
from thaw.run_folder import InspectionFolder
from thaw.terminal.classes import show_counts

_LABEL_ERRORS_SHOWN = 5
_MARKS = {"good": "+", "note": "-", "warning": "!", "alarm": "!!"}


def show_inspection(found: Inspection, folder: InspectionFolder, reporter: Reporter) -> None:
    """Images per class, every finding, the most likely label errors, and where the page is."""
    counts, splits = found.counts(), found.splits
    title = f"{count(found.manifest.readable, 'image')}, {count(len(counts), 'class', 'classes')}"
    show_counts(title, counts, splits, reporter)
    reporter.say("")
    for finding in findings(found):
        reporter.say(f"{_MARKS[finding.severity]:>2} {finding.text}")
    if found.label_errors:
        paths, classes = found.manifest.column("path"), [shortened(name) for name in found.manifest.classes]
        shown = [
            (paths[item.row], classes[item.given], classes[item.suggested], percent(item.suggested_probability, 0))
            for item in found.label_errors[:_LABEL_ERRORS_SHOWN]
        ]
        reporter.table("Most likely label errors", ("image", "label", "suggested", "probability"), shown)
    reporter.say(f"\npage {folder.page}, the same as JSON {folder.findings}")
