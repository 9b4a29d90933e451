"""Commands for pre-trained networks, the cache and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from thaw.cli.app import WIDE, app
from thaw.errors import RecipeError
from thaw.formats import command, count
from thaw.recipe import Recipe
from thaw.writing import check_new_weights

if TYPE_CHECKING:
    from thaw.cache import CacheEntry

networks = typer.Typer(help="List pre-trained networks, and download one for a machine without internet.")
app.add_typer(networks, name="models", invoke_without_command=True)


@networks.callback()
def _networks(context: typer.Context) -> None:
    """List pre-trained networks, or download one for a machine without internet."""
    if context.invoked_subcommand is None:
        models_list()


@networks.command("list")
def models_list(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILTER]", help="Show only names with these words.")
    ] = None,
) -> None:
    """List pre-trained networks: size, cost, published accuracy, and whether they are on this machine."""
    from thaw.backbones.catalogue import find
    from thaw.backbones.download import is_cached
    from thaw.backbones.keras.published import cached_file, published_networks

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "family", "parameters", "GMACs", "input", "top-1", "source", "offline?"):
        table.add_column(title, justify="right" if title in {"parameters", "GMACs", "input", "top-1"} else "left")
    of_keras = {network.entry: cached_file(network) is not None for network in published_networks()}
    for entry in find(" ".join(words or []), of_keras):
        table.add_row(
            entry.name,
            entry.family,
            f"{entry.parameters_m:.1f} M",
            f"{entry.gmacs:.2f}",
            f"{entry.input_size}",
            "-" if entry.top1 is None else f"{entry.top1:.1f}%",
            entry.source,
            "yes" if (of_keras[entry] if entry in of_keras else is_cached(entry.name)) else "no",
        )
    _print(table)


@networks.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A network listed by `thaw models`.")],
    to: Annotated[
        Path,
        typer.Option(help="The file to write, which must not exist: .safetensors, or .h5 for a network of Keras."),
    ],
) -> None:
    """Download published weights into one file, with their preprocessing, for use on another machine."""
    from thaw.backbones import build
    from thaw.backbones.keras import is_application
    from thaw.backbones.keras.published import fetch_to, look_up
    from thaw.backbones.weights import write_file

    if is_application(name):
        network = look_up(name)
        digest = fetch_to(network, to)
        print(f"{to}: {network.address}, licence {network.license}, sha256 {digest}")
    else:
        check_new_weights(to)
        backbone = build(Recipe(backbone=name))
        digest = write_file(backbone, to)
        print(f"{to}: {backbone.facts.origin}, licence {backbone.facts.license}, sha256 {digest}")
    trains = command("thaw", "train", "IMAGES", "--backbone", name, "--weights", to.name)
    print(f"on the other machine: {trains}")


caches = typer.Typer(
    help="List or clear the cache: decoded pixels, extracted features, mirrors of remote storage.",
    no_args_is_help=True,
)
app.add_typer(caches, name="cache")


@caches.command("list")
def cache_list() -> None:
    """List the cache: content, size and last use, least recently used first."""
    from datetime import datetime

    from thaw.cache import cache_entries, configured_folder

    folder = configured_folder()
    entries = cache_entries(folder)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("last used", "size", "kind", "content"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for entry in entries:
        last_used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        table.add_row(last_used, f"{entry.size / 1e6:,.1f} MB", entry.kind, entry.description)
    if entries:
        _print(table)
    print(f"{folder}: {_summary(entries)}")


@caches.command("clear")
def cache_clear(
    kind: Annotated[
        str | None,
        typer.Argument(help="pixels, features, remote (mirrors of remote storage) or all.", show_default="all"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Only what is kept of the images of this run: their decoded pixels and their features, without which "
            "`thaw update` needs the images again.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Clear the cache; later runs rebuild what they need.

    Features are as confidential as the images that they were extracted from.
    """
    from thaw.cache import KINDS, clear, configured_folder

    if run is not None:
        if kind is not None:
            raise RecipeError(f"cache clear {kind} --run {run}: give one of the two")
        from thaw.run_folder import RunFolder
        from thaw.updating.cache_of_run import clear_run

        removed = clear_run(RunFolder(run), configured_folder())
    else:
        kinds = tuple(name for name in KINDS if kind in (name, "all", None))
        if not kinds:
            raise RecipeError(f"cache clear {kind}: no such kind; known are {', '.join(KINDS)} and all")
        removed = clear(configured_folder(), kinds)
    print(f"removed {_summary(removed)} from {configured_folder()}")


def _print(table: Table) -> None:
    """Print a table as wide as it needs to be."""
    # Not needed to list the commands.
    from thaw.terminal.console import plain_console

    plain_console(WIDE).print(table)


def _summary(entries: Sequence[CacheEntry]) -> str:
    """As `3 entries, 1.25 GB`."""
    return f"{count(len(entries), 'entry', 'entries')}, {sum(entry.size for entry in entries) / 1e9:.2f} GB"


@app.command("settings")
def list_settings(
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORD]", help="Show settings with these words.")] = None,
) -> None:
    """List the settings of a recipe: key, default, allowed values, description."""
    from thaw.recipe.reference import find

    found = find(" ".join(words or []))
    if not found:
        raise RecipeError(f"settings: none has {' '.join(words or [])!r}; `thaw settings` lists them all")
    for setting in found:
        print(f"{setting.key}  (default: {setting.default}; {setting.allowed})\n    {setting.description}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the images and the run.")] = Path("thaw-demo"),
    random_start: Annotated[
        bool, typer.Option("--random-start", help="Also train from random weights, to show the gain from pre-training.")
    ] = False,
) -> None:
    """Create a small set of surface-defect images, train on it and show the result; needs no network."""
    from thaw.demo import run_demo

    run_demo(folder, random_start)
