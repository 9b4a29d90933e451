"""What tells how good a classifier is, where it fails, and what to make of that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from thaw.cli.app import Finished, Trained, app, field_of, on_stderr
from thaw.cli.parsing import parsed_items
from thaw.errors import RecipeError
from thaw.recipe import Recipe


def _requirement(key: str, metavar: str) -> Any:
    """A repeatable option for a mapping of the recipe."""
    return typer.Option(help=field_of(key).description, metavar=metavar, show_default=False)


@app.command()
def evaluate(
    trained: Trained,
    data: Annotated[Path | None, typer.Argument(help="Folder or table of labelled images.", show_default=False)] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Instead of DATA: train again on folds of the run's own data.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(help="With --folds: how often the folds are dealt.")] = 1,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --folds: train the whole recipe, not a head on stored features.")
    ] = False,
    options: Annotated[
        bool,
        typer.Option("--options", help="Instead of DATA: what mirror images and larger pictures bring."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write all figures to this JSON file as well.", show_default=False)
    ] = None,
) -> None:
    """Measure a trained classifier on labelled images, or its recipe by cross-validation, with 95 % intervals."""
    import json
    from dataclasses import asdict

    from thaw import atomic, pipeline
    from thaw.data.dataset import Dataset
    from thaw.terminal.console import ConsoleReporter
    from thaw.terminal.results import show_evaluation

    if (data is not None) + (folds is not None) + options != 1:
        raise RecipeError("evaluate: give either DATA to measure on, --folds K to train again, or --options")
    if options:
        found: Any = [asdict(option) for option in pipeline.try_options(trained)]
    elif folds is not None:
        found = asdict(pipeline.cross_validate(trained, folds, seeds, whole))
    else:
        assert data is not None
        classifier, terminal = pipeline.load(trained), ConsoleReporter()
        result = pipeline.evaluate(classifier, Dataset.open(data, classifier.task, classifier.classes), terminal)
        show_evaluation(result, terminal)
        found = result.to_json()
    if out:
        atomic.write_text(out, json.dumps(found, indent=2) + "\n")


@app.command()
def decide(
    trained: Finished,
    out: Annotated[Path, typer.Option(help="Bundle to write; it must not exist.")],
    recall: Annotated[list[str], _requirement("decision.recall", "CLASS=FRACTION")] = [],  # noqa: B006
    precision: Annotated[list[str], _requirement("decision.precision", "CLASS=FRACTION")] = [],  # noqa: B006
    costs: Annotated[list[str], _requirement("decision.costs", "TRUE>PREDICTED=COST")] = [],  # noqa: B006
) -> None:
    """Choose other decision thresholds on validation, show what they do on test, and write a new bundle.

    Options can be repeated, one class each. Class names that contain = or > are written as YAML: --recall '{a=b: 0.9}'.
    """
    from thaw.pipeline import decide as choose

    given = {"recall": recall, "precision": precision, "costs": costs}
    settings = {name: parsed_items(f"decision.{name}", texts) for name, texts in given.items()}
    if not any(settings.values()):
        raise RecipeError("decide: name a requirement, such as --recall crack=0.99")
    choose(trained, Recipe.from_values({"decision": settings}, where="decide").decision, out)


@app.command()
def compare(
    first: Finished,
    second: Annotated[Path, typer.Argument(help="Another one over the same images.")],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
) -> None:
    """Say whether one run is better than another, by the images that both were tested on."""
    from thaw.pipeline import compare as beside

    beside(first, second, split)


@app.command()
def explain(
    trained: Trained,
    photos: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for them.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; nothing in it is overwritten.")],
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Show what speaks for this class.", show_default=False)
    ] = None,
) -> None:
    """Show where in each image the classifier sees what speaks for its class: one picture per file.

    Without --class that is the most probable class of each image.
    """
    from thaw.evaluation.overlays import write_overlays
    from thaw.pipeline import load
    from thaw.prediction.job import files_at

    classifier = load(trained)
    written = failed = 0
    for row in write_overlays(classifier, list(files_at(photos)), out, class_name):
        written += row.status == "ok"
        failed += row.status == "error"
        said = f"{row.picture}: {row.label}, {row.probability:.1%}" if row.picture else f"{row.path}: {row.reason}"
        print(said, file=sys.stdout if row.picture else sys.stderr)
    print(f"{written} pictures written to {out}, {failed} files without one", file=sys.stderr)


@app.command()
def report(run: Finished) -> None:
    """Write the page of a finished run anew: figures, pictures, reasons, in one HTML file that needs no network."""
    from thaw.pipeline import report as write

    print(write(run, on_stderr()))
