"""Commands that tell how good a classifier is, and what to do about it."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thaw.cli.app import (
    DATA_HELP,
    ClusterAddress,
    Finished,
    Trained,
    app,
    check_finished,
    check_trained,
    field_of,
    local_copies,
    on_stderr,
)
from thaw.cli.parsing import parsed_items
from thaw.errors import DataError, RecipeError
from thaw.formats import percent
from thaw.recipe import Recipe
from thaw.writing import check_has_folder, check_new

if TYPE_CHECKING:
    from thaw.data.dataset import Dataset


def _requirement(key: str, metavar: str) -> Any:
    """A repeatable option for a mapping of the recipe."""
    return typer.Option(help=field_of(key).description, metavar=metavar, show_default=False)


def _limit(key: str) -> Any:
    """An option for a fraction of the recipe; without it, the classifier keeps its own."""
    return typer.Option(help=f"{field_of(key).description} By default that of the training.", show_default=False)


@app.command()
def evaluate(
    trained: Trained,
    data: Annotated[Path | None, typer.Argument(help=DATA_HELP, show_default=False)] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Instead of DATA: cross-validate on the run's own data, with K folds.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(help="With --folds: number of cross-validation repeats.")] = 1,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --folds: train the whole recipe, not a head on cached features.")
    ] = False,
    options: Annotated[
        bool,
        typer.Option("--options", help="Instead of DATA: compare test-time augmentation and larger images."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write the metrics to this JSON file; it must not exist.", show_default=False),
    ] = None,
    cluster: ClusterAddress = None,
) -> None:
    """Evaluate a classifier on labelled images, or cross-validate its recipe; metrics with 95% confidence intervals."""
    import json
    from dataclasses import asdict

    from thaw.bundle_path import bundle_of

    if (data is not None) + (folds is not None) + options != 1:
        raise RecipeError("evaluate: give either DATA to evaluate on, --folds K to cross-validate, or --options")
    needs_folds = {"--cluster": cluster, "--whole": whole, "--seeds": seeds != 1}
    for option in (option for option, is_given in needs_folds.items() if is_given and folds is None):
        raise RecipeError(f"evaluate: {option} is for cross-validation; add --folds K, or leave it out")
    if out:
        check_has_folder(out)
        check_new(out)
    if data:
        # A name on the hub is looked up once.
        trained = bundle_of(trained)
    dataset = _opened(trained, data) if data else None

    from thaw import atomic, pipeline
    from thaw.terminal.console import ConsoleReporter
    from thaw.terminal.results import show_evaluation

    if options:
        found: Any = [asdict(option) for option in pipeline.compare_prediction_options(trained)]
    elif folds is not None:
        found = asdict(pipeline.cross_validate(trained, folds, seeds, whole, cluster=cluster))
    else:
        assert dataset is not None
        reporter = ConsoleReporter()
        result = pipeline.evaluate(trained, dataset, reporter)
        show_evaluation(result, reporter)
        found = result.to_json()
    if out:
        atomic.write_new(out, f"{json.dumps(found, indent=2)}\n".encode())


def _opened(bundle: Path, data: Path) -> Dataset:
    """The data set, before PyTorch is loaded: whatever is wrong with the files is said at once."""
    from thaw.bundle_path import labels_of
    from thaw.data.dataset import Dataset

    task, classes = labels_of(bundle)
    with closing(on_stderr()) as reporter:
        return Dataset.open(data, task, classes, bar=reporter.bar)


@app.command()
def decide(
    trained: Finished,
    out: Annotated[Path, typer.Option(help="Bundle to write; it must not exist.")],
    recall: Annotated[list[str] | None, _requirement("decision.recall", "CLASS=FRACTION")] = None,
    precision: Annotated[list[str] | None, _requirement("decision.precision", "CLASS=FRACTION")] = None,
    costs: Annotated[list[str] | None, _requirement("decision.costs", "TRUE>PREDICTED=COST")] = None,
    coverage: Annotated[float | None, _limit("decision.coverage")] = None,
    in_distribution: Annotated[float | None, _limit("decision.in_distribution")] = None,
) -> None:
    """Choose other decision thresholds on validation, show what they do on test, and write a new bundle.

    Options can be repeated, one class each. A class name may contain = and commas; one that contains > is written as
    YAML: --costs '{"a>b": {ok: 5}}'.
    """
    from thaw import pipeline

    given = {"recall": recall, "precision": precision, "costs": costs}
    limits = {"coverage": coverage, "in_distribution": in_distribution}
    settings = {
        **{name: parsed_items(f"decision.{name}", texts) for name, texts in given.items() if texts},
        **{name: value for name, value in limits.items() if value is not None},
    }
    if not settings:
        raise RecipeError("decide: name a requirement, such as --recall crack=0.99")
    pipeline.decide(trained, Recipe.from_values({"decision": settings}, where="decide").decision, out)


@app.command()
def compare(
    first: Finished,
    second: Annotated[Path, typer.Argument(help="Another finished run on the same images.", callback=check_finished)],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
) -> None:
    """Compare two runs on the images that both were tested on."""
    from thaw import pipeline

    pipeline.compare(first, second, split)


@app.command()
def explain(
    trained: Trained,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for them.")],
    out: Annotated[Path, typer.Option(help="Folder for the maps; nothing in it is overwritten.")],
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Show the evidence for this class.", show_default=False),
    ] = None,
) -> None:
    """Show where in each image the classifier sees evidence for its class: one class activation map per image.

    Without --class, for the predicted class of each image.
    """
    from thaw.prediction.inputs import LeftOut, check_places, files_at

    # Before torch is imported, which takes seconds.
    images = local_copies(images)
    check_places(images)
    from thaw.evaluation.overlays import write_overlays
    from thaw.pipeline import load
    from thaw.remote import shown

    left_out = LeftOut()
    files = list(files_at(images, left_out))
    for sentence in left_out.sentences:
        print(shown(sentence), file=sys.stderr)
    written = failed = 0
    for row in write_overlays(load(trained), files, out, class_name):
        written += row.status == "ok"
        failed += row.status == "error"
        failure = f"{shown(row.path)}: {row.reason}"
        line = f"{row.output}: {row.label}, {percent(row.probability)}" if row.output else failure
        print(line, file=sys.stdout if row.output else sys.stderr, flush=True)
    print(f"{written} written to {out}, {failed} failed", file=sys.stderr)
    if failed and not written:
        raise DataError("explain: no image was explained; the reasons are above")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A finished run, such as runs/train-1.", callback=check_trained)],
) -> None:
    """Write report.html of a finished run again: one HTML file that needs no network."""
    from thaw import pipeline

    print(pipeline.report(run, on_stderr()))
