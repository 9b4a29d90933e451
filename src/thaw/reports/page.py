"""`report.html`: the page of a finished run, one self-contained file under five megabytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from thaw.classifier.classifier import Classifier
from thaw.formats import command, duration, points
from thaw.html.environment import environment
from thaw.metrics import CLASS_METRICS, METRICS
from thaw.progress import Reporter
from thaw.reports import charts
from thaw.reports.content import Content, Provenance, Training, read_content
from thaw.reports.images import ConfusionCell, ConfusionMatrix
from thaw.reports.results import SPLIT_NAMES
from thaw.reports.thresholds import ThresholdCurve
from thaw.run_folder import RunFolder
from thaw.terminal.metric_text import value_text
from thaw.training.gain import KEPT_FOR


@dataclass(frozen=True)
class Charts:
    """The charts of the page; `threshold_data` is what the script of the page draws into `thresholds`."""

    loss: Markup
    monitored: Markup
    reliability: Markup
    thresholds: Markup
    threshold_data: dict[str, Any]


@dataclass(frozen=True)
class GainRow:
    """Gain of a phase as text; of a phase that was skipped, the time that this saved at most and why."""

    phase: str
    epochs: str
    time: str
    best: str
    gain: str
    standard_error: str
    outcome: str


@dataclass(frozen=True)
class Command:
    """A command to use or reproduce the run with."""

    purpose: str
    line: str


def write_page(run: RunFolder, classifier: Classifier, reporter: Reporter) -> Path:
    """Write report.html of a finished run.

    Raises:
        DataError: The files are not those of a finished run.
    """
    content = read_content(run, classifier, reporter.bar("read images for the report"))
    run.write_report(render(content))
    return run.report


def render(content: Content) -> str:
    """The page as one self-contained HTML file."""
    templates = environment()
    templates.filters["interval_bar"] = lambda estimate: Markup(charts.interval_bar(estimate))
    return templates.get_template("report.html").render(
        page=content,
        split=SPLIT_NAMES[content.split],
        monitor=METRICS[content.training.monitor],
        class_metrics=CLASS_METRICS.values(),
        charts=_charts(content),
        matrix=_matrix(content.images.confusion),
        gains=_gain_rows(content.training),
        kept_for=KEPT_FOR[content.training.keep_phase],
        commands=_commands(content.provenance),
    )


def _charts(content: Content) -> Charts:
    training, calibration, monitor = content.training, content.calibration, METRICS[content.training.monitor]
    loss = charts.training_curve(
        training.records,
        training.kept,
        "loss by epoch",
        {"training": lambda record: record.train_loss, "validation": lambda record: record.val.loss},
        "{:.3g}".format,
    )
    monitored = charts.training_curve(
        training.records,
        training.kept,
        f"validation {monitor.title} by epoch",
        {"validation": lambda record: record.val[monitor.name]},
        lambda value: value_text(value, monitor),
    )
    axes, frame = charts.threshold_frame()
    return Charts(
        loss=Markup(loss),
        monitored=Markup(monitored),
        reliability=Markup(charts.reliability(calibration.bins_before, calibration.bins_after)),
        thresholds=Markup(axes),
        threshold_data={
            "splits": {split: SPLIT_NAMES[split] for curve in content.thresholds[:1] for split in curve.splits},
            "curves": [_curve(curve) for curve in content.thresholds],
            "frame": {"left": frame.x(0), "right": frame.x(1), "bottom": frame.y(0), "top": frame.y(1)},
        },
    )


def _curve(curve: ThresholdCurve) -> dict[str, Any]:
    return {
        "name": curve.class_name,
        "thresholds": [round(value, 6) for value in curve.thresholds],
        "in_use": curve.in_use,
        "splits": {split: asdict(counts) for split, counts in curve.splits.items()},
    }


def _matrix(confusion: ConfusionMatrix | None) -> dict[str, list[tuple[int, ConfusionCell | None]]]:
    """Rows of the matrix by true class: for each predicted class the number of the cell and the cell, if it has images.

    Empty where there is no matrix to draw.
    """
    if confusion is None:
        return {}
    cells = {(cell.true, cell.predicted): (number, cell) for number, cell in enumerate(confusion.cells)}
    return {
        true: [cells.get((true, predicted), (-1, None)) for predicted in confusion.classes]
        for true in confusion.classes
    }


def _gain_rows(training: Training) -> list[GainRow]:
    """Gain and standard error in percentage points, or in the unit of the loss."""
    rows, monitor = [], METRICS[training.monitor]
    is_fraction = monitor.kind == "fraction"
    for item in training.gains:
        gain = "-"
        if item.before is not None:
            gain = points(item.gain) if is_fraction else f"{item.gain:+.3f}"
        error = "-"
        if item.standard_error is not None:
            error = f"{100 * item.standard_error:.1f}" if is_fraction else f"{item.standard_error:.3f}"
        best = value_text(abs(item.best), monitor)
        rows.append(GainRow(item.phase, f"{item.epochs}", duration(item.seconds), best, gain, error, item.outcome))
    for phase in training.skipped:
        outcome = f"skipped, which saved at most {duration(phase.seconds)}: {phase.reason}"
        rows.append(GainRow(phase.phase, "-", "-", "-", "-", "-", outcome))
    return rows


def _commands(provenance: Provenance) -> list[Command]:
    run, recipe = command(provenance.run), command(Path(provenance.run) / "recipe.yaml")
    return [
        Command("Classify images", f"thaw predict {run} IMAGES --out predictions.csv"),
        Command("Show the evidence for predictions", f"thaw explain {run} IMAGES --out evidence"),
        Command("Export to another engine", f"thaw export {run} --to onnx --out model.onnx"),
        Command("Serve predictions over HTTP", f"thaw serve {run}"),
        Command("Change the decision threshold", f"thaw decide {run} --recall CLASS=0.99 --out model-99"),
        Command("Evaluate on other labelled images", f"thaw evaluate {run} DATA"),
        Command("Train again with the same recipe", f"thaw train DATA --recipe {recipe}"),
        Command("Write this report again", f"thaw report {run}"),
    ]
