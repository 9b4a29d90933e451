"""The command that says which images to label next."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from thaw.cli.app import app, field_of, on_stderr
from thaw.cli.parsing import parsed
from thaw.csv_text import print_csv
from thaw.recipe import Recipe
from thaw.writing import check_has_folder, check_new


def _setting(key: str) -> object:
    """An option for a setting of the recipe."""
    field = field_of(key)
    shown = "" if field.default in (None, "") else f" Default: {field.default}."
    return typer.Option(help=f"{field.description}{shown}", metavar="VALUE", show_default=False)


@app.command()
def label(
    images: Annotated[Path, typer.Argument(help="Folder of images; its sub-folders mean nothing.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table with the columns path and label of the images that have one, or an export of Label Studio, "
            "CVAT or COCO; paths are relative to IMAGES or to the table.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV to write, which must not exist; without it, standard output.", show_default=False),
    ] = None,
    number: Annotated[int, typer.Option(min=1, help="How many images to label next.")] = 20,
    backbone: Annotated[str | None, _setting("backbone")] = None,
    weights: Annotated[str | None, _setting("weights")] = None,
    image_size: Annotated[str | None, _setting("preprocessing.image_size")] = None,
    device: Annotated[str | None, _setting("device")] = None,
    engine: Annotated[str | None, _setting("engine")] = None,
    seed: Annotated[str | None, _setting("seed")] = None,
) -> None:
    """List the images to label next, in the order in which labelling helps most; train nothing.

    With few labels those that are typical of the data, later those that a linear head on the labels so far is uncertain
    about. Once there are labels of two classes, each has a suggested label, and one line says what 100 more labels
    would give. Re-run it with the new labels after every ten or twenty.
    """
    if out:
        check_has_folder(out)
        check_new(out)
    given = {
        "backbone": backbone,
        "weights": weights,
        "preprocessing.image_size": image_size,
        "device": device,
        "engine": engine,
        "seed": seed,
    }
    recipe = Recipe().with_settings({key: parsed(key, value) for key, value in given.items() if value is not None})
    # Before torch is imported, which takes seconds.
    from thaw.labelling.folder import ImageFolder

    with closing(on_stderr()) as reporter:
        folder = ImageFolder.open(images, labels, reporter.bar)

    from thaw import pipeline

    with closing(on_stderr()) as reporter:
        queue = pipeline.label(folder, number=number, recipe=recipe, reporter=reporter)
        if out:
            queue.write(out)
            reporter.say(f"{out}: {len(queue):,} to label")
        else:
            print_csv(queue.to_csv().encode("utf-8"), sys.stdout)
