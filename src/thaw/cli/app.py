"""The application that commands are added to, and arguments that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thaw.cli.interrupts import Commands
from thaw.errors import ClusterError
from thaw.recipe import Recipe
from thaw.settings import Section
from thaw.version import __version__

if TYPE_CHECKING:
    from thaw.terminal.console import ConsoleReporter

WIDE = 132
"""Columns that wide tables need."""

app = typer.Typer(
    cls=Commands,
    help="Fine-tune a pre-trained CNN on your own labelled images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Runs = Annotated[Path, typer.Option("--runs", help="Folder for runs; each makes its own in it.")]


def check_trained(path: Path) -> Path:
    """Say at once, before PyTorch is loaded, that there is no run or bundle."""
    from thaw.bundle_path import local_bundle
    from thaw.hub import is_hub_name

    if not is_hub_name(str(path)):
        local_bundle(path)
    return path


def check_finished(path: Path) -> Path:
    """Say at once, before PyTorch is loaded, that there is no finished run."""
    from thaw.run_folder import RunFolder

    return RunFolder.at(path).path


Trained = Annotated[
    Path,
    typer.Argument(help="A run folder, such as runs/train-1, a bundle, or hub:OWNER/NAME.", callback=check_trained),
]
Finished = Annotated[Path, typer.Argument(help="A finished run, such as runs/train-1.", callback=check_finished)]


DATA_HELP = "Folder or table of labelled images; also on remote storage, such as s3://bucket/images."
CLUSTER_HELP = (
    "Compute on a Ray cluster: HOST:PORT of its head, of which this machine is a node, or local for this machine alone."
)


def check_address(address: str | None) -> str | None:
    """A cluster's address; raises `ClusterError` for an empty one, such as that of a variable that is not set."""
    if address is not None and not address.strip():
        raise ClusterError("--cluster: the address is empty; write local, or HOST:PORT of the head of a Ray cluster")
    return address


ClusterAddress = Annotated[
    str | None,
    typer.Option("--cluster", metavar="ADDRESS", help=CLUSTER_HELP, show_default=False, callback=check_address),
]


def on_stderr() -> ConsoleReporter:
    """A reporter for what a command says besides its output."""
    from thaw.terminal.console import ConsoleReporter, plain_console

    return ConsoleReporter(plain_console(stderr=True, soft_wrap=True))


def local_copies(places: Sequence[Path]) -> list[Path]:
    """Files and folders, of which those on remote storage are mirrored in the cache."""
    from thaw.remote import is_remote, mirrored

    if not any(map(is_remote, places)):
        return list(places)
    with closing(on_stderr()) as reporter:
        return [mirrored(place, reporter.bar) for place in places]


def field_of(key: str) -> Any:
    """The field of the recipe at a dotted key."""
    section: type[Section] = Recipe
    *parents, last = key.split(".")
    for parent in parents:
        section = type(section.model_fields[parent].default)
    return section.model_fields[last]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"thaw {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...
