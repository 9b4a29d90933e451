"""A new metric is one entry of the table: everything that lists metrics finds it there."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.metrics.samples import scored
from thaw.data.manifest import Manifest
from thaw.evaluation.compare import compare
from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.folds import CrossValidation
from thaw.evaluation.records import Records, read_records
from thaw.metrics import CLASS_METRICS, METRICS, Metric, overall, per_class
from thaw.pipeline import load
from thaw.progress import NullReporter
from thaw.reports import model_card
from thaw.reports.content import read_content
from thaw.reports.page import render
from thaw.run_folder import RunFolder, epochs_file
from thaw.terminal import results

NEW = Metric("errors", "error rate", "fraction of wrong labels", lambda images: images.mean(~images.scored.correct))


class Tables(NullReporter):
    def __init__(self) -> None:
        self.text = ""

    def table(self, title: str, header: object, rows: object) -> None:
        self.text += f"{title} {header} {rows}\n"


@pytest.fixture
def new_metric(monkeypatch: pytest.MonkeyPatch) -> Metric:
    monkeypatch.setitem(METRICS, NEW.name, NEW)
    return NEW


def evaluations_of(run: RunFolder) -> Mapping[str, Evaluation]:
    values = json.loads(run.evaluation.read_text())
    return {split: Evaluation.from_json(values[split]) for split in ("val", "test")}


def with_new_metric(run: RunFolder) -> Mapping[str, Evaluation]:
    """The evaluations of a run as they are computed now."""
    return {
        split: replace(evaluation, overall=overall(read_records(run.predictions, split).scored))
        for split, evaluation in evaluations_of(run).items()
    }


def test_names_are_keys_and_every_entry_has_a_title_and_a_description() -> None:
    for table in (METRICS, CLASS_METRICS):
        for name, metric in table.items():
            assert metric.name == name and metric.title and metric.description


def test_metrics_csv_keeps_its_columns() -> None:
    assert tuple(column for column in epochs_file.header() if column.startswith("val_")) == (
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "val_macro_f1",
        "val_mean_average_precision",
    )


def test_a_new_metric_is_evaluated_and_survives_json(new_metric: Metric, trained: RunFolder) -> None:
    (evaluation, _) = with_new_metric(trained).values()
    written = json.loads(json.dumps(evaluation.to_json()))
    assert set(written["overall"]["errors"]) == {"value", "low", "high"}
    assert Evaluation.from_json(written).overall["errors"] == evaluation.overall["errors"]


def test_a_new_metric_is_shown_on_the_console(new_metric: Metric, trained: RunFolder) -> None:
    evaluations, reporter = with_new_metric(trained), Tables()
    results.show_results(trained, evaluations, reporter)
    results.show_evaluation(evaluations["test"], reporter)
    estimates = evaluations["test"].overall
    results.show_cross_validation(CrossValidation("heads", 2, 36, (estimates, estimates)), reporter)
    assert reporter.text.count("error rate") == 3


def test_a_new_metric_is_compared(new_metric: Metric) -> None:
    sample = scored(40, 2, 0)
    paths = tuple(f"{index}.png" for index in range(40))
    flags = sample.correct & False
    records = Records(paths, ("ok", "crack"), sample, ((),) * 40, flags, flags, flags.astype(float))
    reporter, found = Tables(), compare(records, records)
    results.show_comparison(Path("first"), Path("second"), found, reporter)
    assert found.differences["errors"].value == 0.0 and "error rate" in reporter.text


def test_a_new_metric_is_in_the_model_card_and_the_report(new_metric: Metric, trained: RunFolder) -> None:
    classifier, evaluations = load(trained.path), with_new_metric(trained)
    content = read_content(trained, classifier)
    card = model_card.write(classifier, trained.read_recipe(), Manifest.read(trained.manifest), evaluations)
    assert "| error rate |" in card
    assert "error rate" in [item.name for item in content.metrics]


def test_a_new_metric_of_each_class_is_listed(trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(CLASS_METRICS["recall"], name="sensitivity", title="sensitivity")
    monkeypatch.setitem(CLASS_METRICS, found.name, found)
    (first, _) = per_class(scored(30, 2, 0))
    assert first["sensitivity"] == first["recall"]
    assert "sensitivity" in render(read_content(trained, load(trained.path)))


def test_a_run_without_the_new_metric_still_opens(new_metric: Metric, trained: RunFolder) -> None:
    evaluations, reporter = evaluations_of(trained), Tables()
    assert "errors" not in evaluations["test"].overall
    results.show_results(trained, evaluations, reporter)
    assert "accuracy" in reporter.text and "error rate" not in reporter.text
    assert "error rate" not in render(read_content(trained, load(trained.path)))
