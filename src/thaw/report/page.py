"""`report.html`: the page that a run leaves, one file that needs no network and stays under five megabytes."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from thaw.classifier.classifier import Classifier
from thaw.formats import duration
from thaw.html.environment import environment
from thaw.metrics import CLASS_METRICS, Estimate
from thaw.progress import Reporter
from thaw.report import charts
from thaw.report.content import Content, Origin, read_content
from thaw.report.images import Cell, Confusion
from thaw.report.thresholds import ThresholdCurve
from thaw.report.verdict import SET_NAMES
from thaw.run_folder import RunFolder


@dataclass(frozen=True)
class Drawn:
    """The charts of the page, and the data of the one that moves."""

    loss: Markup
    monitored: Markup
    reliability: Markup
    thresholds: Markup
    moving: dict[str, Any]


def write_page(run: RunFolder, classifier: Classifier, reporter: Reporter) -> Path:
    """Write report.html of a finished run, whose classifier is given; raises `DataError` for a run that is not."""
    content = read_content(run, classifier, reporter.bar("read the pictures of the report"))
    run.write_report(render(content))
    return run.report


def render(content: Content) -> str:
    """The page: one HTML file that asks for nothing else."""
    templates = environment()
    templates.filters.update(
        duration=duration,
        percent=_percent,
        number=_number,
        soft=_soft,
        interval=lambda found: Markup(charts.interval(found)),
    )
    return templates.get_template("report.html").render(
        page=content,
        judged=SET_NAMES[content.split],
        set_names=SET_NAMES,
        class_metrics=CLASS_METRICS.values(),
        drawn=_drawn(content),
        matrix=_matrix(content.shown.confusion),
        commands=_commands(content.origin),
    )


def _drawn(content: Content) -> Drawn:
    training, monitor = content.training, content.training.monitor
    axes, frame = charts.threshold_frame()
    losses = (("training", lambda record: record.train_loss), ("validation", lambda record: record.val.loss))
    monitored = (("validation", lambda record: abs(record.val.by(monitor))),)
    return Drawn(
        loss=Markup(charts.training_curve(training.records, training.best, "loss by epoch", losses)),
        monitored=Markup(
            charts.training_curve(training.records, training.best, f"validation {monitor} by epoch", monitored)
        ),
        reliability=Markup(charts.reliability(content.calibrated.before, content.calibrated.after)),
        thresholds=Markup(axes),
        moving={
            "sets": {split: SET_NAMES[split] for curve in content.thresholds[:1] for split in curve.sets},
            "curves": [_curve(curve) for curve in content.thresholds],
            "frame": {"left": frame.x(0), "right": frame.x(1), "bottom": frame.y(0), "top": frame.y(1)},
        },
    )


def _curve(curve: ThresholdCurve) -> dict[str, Any]:
    return {
        "name": curve.class_name,
        "thresholds": [round(value, 6) for value in curve.thresholds],
        "chosen": curve.chosen,
        "sets": {split: asdict(counts) for split, counts in curve.sets.items()},
    }


def _matrix(confusion: Confusion | None) -> list[tuple[str, list[tuple[int, Cell | None]]]]:
    """Rows of the matrix: the true class, and for each given class the number of its cell and the cell, if it has one.

    Empty where there is no matrix to draw.
    """
    if confusion is None:
        return []
    cells = {(cell.true, cell.given): (number, cell) for number, cell in enumerate(confusion.cells)}
    return [(true, [cells.get((true, given), (-1, None)) for given in confusion.classes]) for true in confusion.classes]


def _commands(origin: Origin) -> list[tuple[str, str]]:
    run, recipe = shlex.quote(origin.run), shlex.quote(f"{origin.run}/recipe.yaml")
    return [
        ("Classify images", f"thaw predict {run} IMAGES --out predictions.csv"),
        ("See why", f"thaw explain {run} IMAGES --out why"),
        ("Write it for another engine", f"thaw export {run} --to onnx --out model.onnx"),
        ("Answer over HTTP", f"thaw serve {run}"),
        ("Choose another threshold", f"thaw decide {run} --recall CLASS=0.99 --out model-99"),
        ("Measure on other labelled images", f"thaw evaluate {run} DATA"),
        ("Train the same again", f"thaw train DATA --recipe {recipe}"),
        ("Write this page anew", f"thaw report {run}"),
    ]


def _percent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.value:.1f} %"


def _soft(name: str) -> Markup:
    """A name, escaped, that may be broken where a person would break it."""
    text = str(escape(name))
    for mark in "_/":
        text = text.replace(mark, f"{mark}<wbr>")
    return Markup(text)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
