"""The command that opens Studio in the browser."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from thaw.cli.app import app, on_stderr
from thaw.cli.training import recipe_from
from thaw.errors import PackageError
from thaw.recipe import Recipe


@app.command()
def studio(
    images: Annotated[
        Path | None,
        typer.Argument(
            help="Folder or table of images; a project remembers them. Without it, drop images into the browser.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table with the columns path and label of the images of a folder that have one, or an export of Label "
            "Studio, CVAT or COCO.",
            show_default=False,
        ),
    ] = None,
    project: Annotated[
        Path, typer.Option(help="Folder of the project, for labels, thumbnails and runs; made if needed.")
    ] = Path("studio"),
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe file that training starts from.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the recipe, such as backbone=resnet50."),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            help="Folder elsewhere whose new images may be classified on the screen Try, such as that of a camera.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Label images, train, look at the mistakes and fix the labels, in the browser on this machine.

    Nothing of yours is moved or changed: every change of a label is a line of labels.jsonl in the project, and can be
    undone. Training is a process of its own, which continues when Studio is closed.
    """
    try:
        from thaw.data.walk import existing_folder
        from thaw.studio.project import Project
        from thaw.studio.server import run_studio
        from thaw.studio.workspace import Workspace
        from thaw.web.listening import Address
    except ModuleNotFoundError as error:
        raise PackageError(f'thaw studio needs {error.name}: pip install "thaw-vision[studio]"') from error
    opened = Project.open(project, images, labels)
    watchable = existing_folder(watch).absolute() if watch else None
    requested = recipe_from(recipe, settings or [], {}) or Recipe()
    with closing(on_stderr()) as reporter:
        workspace = Workspace(opened, requested, reporter.bar, watchable)
    with closing(workspace):
        run_studio(workspace, Address(port=port), not no_browser)
