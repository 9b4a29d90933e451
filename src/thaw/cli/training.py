"""What leads to a classifier: options of `train`, `inspect` and `plan` are made from the fields of the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from thaw.cli.app import Runs, app, field_of
from thaw.cli.parsing import parsed, parsed_settings
from thaw.recipe import Recipe
from thaw.settings import Section

SHORTCUTS = {
    "augment": "augment.preset",
    "image_size": "preprocessing.image_size",
    "strict": "decode.strict",
}
"""Nested settings that are asked for so often that they have an option of their own."""


def train(
    data: Path, recipe: Path | None, settings: list[str], resume: bool, runs: Path, **options: str | bool | None
) -> None:
    """Fine-tune on a folder of labelled images or a table of them: plan, train in phases, evaluate, keep a bundle.

    DATA is a folder with one folder per class (or train/val/test folders with classes inside), a CSV or Parquet
    table with the columns path and label, or a folder with a Hub metadata file.
    """
    from thaw.data.dataset import Dataset
    from thaw.pipeline import finetune

    wanted = _recipe_from(recipe, settings, options)
    asked = None if resume and wanted is None else wanted or Recipe()
    task = asked.task if asked else "auto"
    finetune(Dataset.open(data, task), asked, runs, resume)


def plan(data: Path, recipe: Path | None, settings: list[str], out: Path, **options: str | bool | None) -> None:
    """Decide all that `thaw train` would decide, with reasons and a forecast, as a recipe file; train nothing."""
    from thaw.data.dataset import Dataset
    from thaw.pipeline import plan as decide

    asked = _recipe_from(recipe, settings, options) or Recipe()
    decide(Dataset.open(data, asked.task), asked, out)


def inspect_(data: Path, recipe: Path | None, settings: list[str], runs: Path, **options: str | bool | None) -> None:
    """Look at a data set before training: counts, duplicates, leaks, wrong labels, similarity, what more would bring.

    Nothing is trained and no file of yours is changed; a page with pictures and a JSON file are written under RUNS.
    """
    from thaw.data.dataset import Dataset
    from thaw.pipeline import inspect as look_at

    asked = _recipe_from(recipe, settings, options) or Recipe()
    look_at(Dataset.open(data, asked.task), asked, runs)


def _recipe_from(file: Path | None, settings: list[str], options: dict[str, str | bool | None]) -> Recipe | None:
    """The recipe that the command line asks for; `None` when it says nothing about it."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None and value is not False:
            key = SHORTCUTS.get(name, name)
            changes[key] = parsed(key, value) if isinstance(value, str) else value
    changes |= parsed_settings(settings)
    if file is None and not changes:
        return None
    return (Recipe.load(file) if file else Recipe()).with_settings(changes)


def _signature(*own: inspect.Parameter, only: Sequence[str] = ()) -> inspect.Signature:
    """Parameters of a command that takes a recipe: its own, and an option for each plain setting, or for some."""
    shared = [
        _parameter("data", Annotated[Path, typer.Argument(help="Folder or table of labelled images.")]),
        _parameter("recipe", Annotated[Path | None, typer.Option(help="YAML recipe to start from.")], None),
        _parameter(
            "settings",
            Annotated[list[str], typer.Option("--set", help="Any setting, such as phases.1.lr=1e-5; repeatable.")],
            [],
        ),
    ]
    return inspect.Signature([*shared, *own, *(item for item in _recipe_options() if not only or item.name in only)])


def _recipe_options() -> list[inspect.Parameter]:
    names = {
        name: name
        for name, field in Recipe.model_fields.items()
        if name != "phases" and not isinstance(field.default, Section)
    }
    options = []
    for name, key in (names | SHORTCUTS).items():
        field = field_of(key)
        flag = f"--{name.replace('_', '-')}"
        help_text = f"{field.description} Default: {field.default}."
        if field.annotation is bool:
            options.append(_parameter(name, Annotated[bool, typer.Option(flag, help=help_text)], False))
        else:
            option = typer.Option(flag, help=help_text, metavar="VALUE", show_default=False)
            options.append(_parameter(name, Annotated[str | None, option], None))
    return options


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _add(name: str, command: Callable[..., None], signature: inspect.Signature) -> None:
    """Register a command under a signature that is made of the recipe's fields."""
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
    app.command(name)(command)


_RESUME = typer.Option("--resume", help="Go on with the newest unfinished run.")
_SEEN_THROUGH = ("backbone", "weights", "image_size", "task", "device", "engine", "seed", "strict")

_RUNS = _parameter("runs", Runs, Path("runs"))
_OUT = typer.Option("--out", help="The recipe to write; it must not exist.")

_add("train", train, _signature(_parameter("resume", Annotated[bool, _RESUME], False), _RUNS))
_add("inspect", inspect_, _signature(_RUNS, only=_SEEN_THROUGH))
_add("plan", plan, _signature(_parameter("out", Annotated[Path, _OUT], Path("recipe.yaml"))))
