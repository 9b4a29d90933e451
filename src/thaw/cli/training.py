"""Commands that lead to a classifier; the options of `train`, `inspect` and `plan` are the fields of the recipe."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thaw.cli.app import DATA_HELP, ClusterAddress, Finished, Runs, app, field_of, on_stderr
from thaw.cli.parsing import parsed, parsed_settings
from thaw.distributed import launched, launched_processes
from thaw.errors import RecipeError
from thaw.recipe import Recipe
from thaw.settings import Section
from thaw.writing import check_has_folder, check_new, check_new_weights

if TYPE_CHECKING:
    from thaw.data.dataset import Dataset

SHORTCUTS = {
    "augment": "augment.preset",
    "image_size": "preprocessing.image_size",
    "layout": "folders.layout",
    "exclude": "folders.exclude",
    "strict": "decode.strict",
    "group_by": "split.group_by",
    "time": "time_limit",
}
"""Settings with an option of their own: nested ones, and one whose option has another name."""


def train(
    data: Path,
    recipe: Path | None,
    settings: list[str],
    resume: bool,
    processes: str | None,
    runs: Path,
    cluster: str | None,
    **options: str | bool | None,
) -> None:
    """Fine-tune on labelled images: plan, train in phases, calibrate, evaluate, and save the classifier as a bundle.

    DATA is a folder with one folder per class (or train/val/test folders with classes inside), a CSV or Parquet
    table with the columns path and label, an export of Label Studio, CVAT or COCO, or a folder with a Hub metadata
    file.
    """
    requested = recipe_to_plan(recipe, settings, options)
    if resume:
        from thaw.run_folder import RunFolder

        RunFolder.latest_unfinished(runs)
    if processes is not None:
        _start_processes(processes, cluster, data, requested)
        # One of the processes is where it computes.
        cluster = None
    # What an unfinished run says about the folder is read with it; one of several processes has met the others first.
    is_opened_later = launched() or (resume and requested is None)
    dataset: Path | Dataset = data
    if not is_opened_later:
        dataset = decoded_ahead(opened(data, requested), requested, cluster)

    from thaw import pipeline

    pipeline.finetune(dataset, requested, runs, resume, cluster=cluster)


def _start_processes(wanted: str, cluster: str | None, data: Path, recipe: Recipe | None) -> None:
    """Start the processes that are wanted, and end with their exit code; does nothing in one of them."""
    if launched():
        from thaw.distributed.launcher import launcher

        if wanted not in ("auto", str(launched_processes())):
            raise RecipeError(f"--processes {wanted}: torchrun has started {launched_processes()}; omit one of the two")
        if cluster and not launcher().is_cluster:
            raise RecipeError(f"--cluster {cluster}: starts processes, as torchrun has done; omit one of the two")
    elif cluster:
        from thaw.distributed.on_cluster import start_on_cluster

        raise typer.Exit(start_on_cluster(cluster, wanted, (recipe or Recipe()).device, sys.argv[1:], data))
    else:
        from thaw.distributed.launch import process_count, start

        if (count := process_count(wanted)) > 1:
            raise typer.Exit(start(count, sys.argv[1:]))


def plan(data: Path, recipe: Path | None, settings: list[str], out: Path, **options: str | bool | None) -> None:
    """Plan what `thaw train` would do, with reasons and a forecast, and write it as a recipe; train nothing."""
    requested = recipe_to_plan(recipe, settings, options)
    check_has_folder(out)
    check_new(out)
    dataset = decoded_ahead(opened(data, requested), requested)

    from thaw import pipeline

    pipeline.plan(dataset, requested, out)


def update(
    run: Finished,
    data: Annotated[Path, typer.Argument(metavar="NEW_IMAGES", help=f"New images. {DATA_HELP}")],
    runs: Annotated[
        Path | None, typer.Option(help="Folder for the new run; by default that of RUN.", show_default=False)
    ] = None,
) -> None:
    """Let a run learn new images, or a new class, without its old images, which may be gone.

    The features that training left in the cache stand in for the old images; they are as confidential as these. Each
    old class is compared before and after. The update is a new run, and is kept only if no old class is recognised less
    well beyond noise; otherwise the exit code is 2. RUN is not changed.
    """
    from thaw import pipeline

    pipeline.update(run, data, runs)


def inspect_(data: Path, recipe: Path | None, settings: list[str], runs: Path, **options: str | bool | None) -> None:
    """Inspect a data set before training: class counts, near-duplicates, leaks, label errors, shift, learning curve.

    Nothing is trained and none of your files is changed; a page and a JSON file are written under RUNS.
    """
    requested = recipe_from(recipe, settings, options)
    dataset = opened(data, requested)

    from thaw import pipeline

    pipeline.inspect(dataset, requested, runs)


def quantise(data: Path, recipe: Path | None, settings: list[str], out: Path, **options: str | bool | None) -> None:
    """Write a pre-trained network in int8, calibrated on your images: faster on CPUs, and only its head trains.

    Convolutions are computed in 8-bit integers, in training and wherever the classifier runs. The speed is compared
    with that in float, and the accuracy of a linear head that is cross-validated on training images.
    """
    check_new_weights(out)
    requested = recipe_from(recipe, settings, options)
    dataset = decoded_ahead(opened(data, requested), requested)

    from thaw import pipeline

    pipeline.quantise(dataset, out, requested)


def opened(data: Path, recipe: Recipe | None) -> Dataset:
    """The data set, before PyTorch is loaded: whatever is wrong with the files is said at once."""
    from thaw.data.dataset import Dataset

    requested = recipe or Recipe()
    with closing(on_stderr()) as reporter:
        return Dataset.open(data, requested.task, folders=requested.folders, bar=reporter.bar)


def decoded_ahead(dataset: Dataset, recipe: Recipe | None, cluster: str | None = None) -> Dataset:
    """The data set, whose images are decoded while PyTorch is loaded, unless the nodes of a cluster will do that."""
    from thaw.cache import cache_folder
    from thaw.data.ahead import decode_ahead
    from thaw.data.reader import reads_on_nodes

    if cluster and reads_on_nodes(len(dataset.manifest)):
        return dataset
    return replace(dataset, ahead=decode_ahead(dataset.manifest, recipe or Recipe(), cache_folder()))


def recipe_from(file: Path | None, settings: list[str], options: dict[str, str | bool | None]) -> Recipe | None:
    """The recipe of the command line; `None` where it gives neither a file nor a setting."""
    changes = changes_from(settings, options)
    if file is None and not changes:
        return None
    return (Recipe.load(file) if file else Recipe()).with_settings(changes)


def recipe_to_plan(file: Path | None, settings: list[str], options: dict[str, str | bool | None]) -> Recipe | None:
    """As `recipe_from`, for a plan, which does not ignore what was given for the choice of a backbone."""
    recipe = recipe_from(file, settings, options)
    if recipe:
        recipe.check_choice(changes_from(settings, options))
    return recipe


def changes_from(settings: list[str], options: Mapping[str, str | bool | None]) -> dict[str, Any]:
    """The settings that the command line gives, by dotted key."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None and value is not False:
            key = SHORTCUTS.get(name, name)
            changes[key] = parsed(key, value) if isinstance(value, str) else value
    return changes | parsed_settings(settings)


def signature(*own: inspect.Parameter, only: Sequence[str] = ()) -> inspect.Signature:
    """Parameters of a command that takes a recipe: its own, and an option for each top-level setting, or for some."""
    shared = [
        parameter("data", Annotated[Path, typer.Argument(help=DATA_HELP)]),
        parameter("recipe", Annotated[Path | None, typer.Option(help="Recipe (YAML) to start from.")], None),
        parameter(
            "settings",
            Annotated[
                list[str],
                typer.Option(
                    "--set", help="Any setting, such as phases.1.lr=1e-5; repeatable. `thaw settings` lists them."
                ),
            ],
            [],
        ),
    ]
    taken = {item.name for item in own}
    options = (item for item in _recipe_options() if item.name not in taken and (not only or item.name in only))
    return inspect.Signature([*shared, *own, *options])


def _recipe_options() -> list[inspect.Parameter]:
    names = {
        name: name
        for name, field in Recipe.model_fields.items()
        if name not in ("phases", "phase_settings", *SHORTCUTS.values()) and not isinstance(field.default, Section)
    }
    options = []
    for name, key in (names | SHORTCUTS).items():
        field = field_of(key)
        flag = f"--{name.replace('_', '-')}"
        help_text = f"{field.description}{_default(field.default)}"
        if field.annotation is bool:
            options.append(parameter(name, Annotated[bool, typer.Option(flag, help=help_text)], False))
        else:
            option = typer.Option(flag, help=help_text, metavar="VALUE", show_default=False)
            options.append(parameter(name, Annotated[str | None, option], None))
    return options


def _default(value: Any) -> str:
    """A default as the end of a help text; nothing for one that is empty."""
    shown = ", ".join(value) if isinstance(value, tuple) else value
    return "" if shown is None or shown is False or shown in ("", {}) else f" Default: {shown}."


def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A parameter of a command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def add_command(name: str, command: Callable[..., None], signature: inspect.Signature) -> None:
    """Register a command with a signature made from the fields of the recipe."""
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
    app.command(name)(command)


_PROCESSES = typer.Option(
    help="Train in so many processes, on this machine or on --cluster, each with its part of the cores, or one per GPU "
    "with auto.",
    metavar="VALUE",
    show_default=False,
)
_RESUME = typer.Option("--resume", help="Resume the newest unfinished run.")
_DATA_OPTIONS = ("backbone", "weights", "image_size", "task", "seed", "strict", "layout", "exclude", "group_by")

RUNS = parameter("runs", Runs, Path("runs"))
_CLUSTER = parameter("cluster", ClusterAddress, None)
_OUT = typer.Option("--out", help="Recipe to write; it must not exist.")
_WEIGHTS = typer.Option("--out", help="The .safetensors file to write; it must not exist.")

_OF_TRAIN = (
    parameter("resume", Annotated[bool, _RESUME], False),
    parameter("processes", Annotated[str | None, _PROCESSES], None),
)
add_command("train", train, signature(*_OF_TRAIN, RUNS, _CLUSTER))
app.command("update")(update)
add_command("inspect", inspect_, signature(RUNS, only=(*_DATA_OPTIONS, "device", "engine")))
add_command("plan", plan, signature(parameter("out", Annotated[Path, _OUT], Path("recipe.yaml"))))
add_command("quantise", quantise, signature(parameter("out", Annotated[Path, _WEIGHTS]), only=_DATA_OPTIONS))
