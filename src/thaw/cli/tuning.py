"""The search for settings that are better than those of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thaw.cli.app import ClusterAddress
from thaw.cli.parsing import parsed_seconds
from thaw.cli.training import RUNS, add_command, changes_from, decoded_ahead, opened, parameter, recipe_from, signature
from thaw.errors import RecipeError
from thaw.recipe.network_files import with_absolute_files
from thaw.tuning.limits import DEFAULT_SECONDS, Limits
from thaw.tuning.space import Space, narrowed, read_space

if TYPE_CHECKING:
    from thaw.recipe import Recipe
    from thaw.run_folder.search_folder import SearchFile


def search(
    data: Path,
    recipe: Path | None,
    settings: list[str],
    time: str | None,
    trials: int | None,
    space: Path | None,
    resume: bool,
    join: Path | None,
    storage: str,
    refit: bool,
    runs: Path,
    cluster: str | None,
    **options: str | bool | None,
) -> None:
    """Search for settings that are better than those of the plan: most trials read features that are in the cache.

    Cheap trials (cross-validated linear heads) choose the network, image size and augmentation, the next ones the head,
    and a few train thawed stages. At the end a best trial that may be better than the plan is trained afresh, as the
    plan is, and they are compared on the test images; the recipe is the plan's unless the best trial is better beyond
    noise. Settings that you give are kept.
    """
    started = perf_counter()
    requested = recipe_from(recipe, settings, options)
    limits = Limits(DEFAULT_SECONDS if time is None else parsed_seconds("--time", time), trials)
    if join and resume:
        raise RecipeError(
            "search: --resume is for a search that nobody works on, --join for one that goes on; omit one"
        )
    if join and (time is not None or trials or refit or cluster):
        raise RecipeError(
            "search: --time, --trials, --refit and --cluster are for the process that began the search or resumes it; "
            "omit them with --join"
        )
    ranges = read_space(space) if space else {}
    if resume or join:
        from thaw.run_folder.search_folder import SearchFolder

        folder = SearchFolder.at(join) if join else SearchFolder.latest_unfinished(runs, refit)
        begun = folder.read_file()
        if not _is_that_of(begun, requested) or not _are_those_of(begun, ranges):
            raise RecipeError(
                f"{folder.path}: goes on with the settings and ranges that it began with; omit the others"
            )
        dataset = opened(data, begun.requested)
        # What is not given stays.
        limits = Limits(begun.seconds if time is None else limits.seconds, trials or begun.trials)

        from thaw.pipeline.tuning import continue_search

        new_limits = None if time is None and trials is None else limits
        continue_search(dataset, folder.path, new_limits, join is not None, storage, refit=refit, cluster=cluster)
        return
    dataset = decoded_ahead(opened(data, requested), requested)

    from thaw import pipeline

    pipeline.search(
        dataset,
        requested,
        ranges,
        runs,
        replace(limits, spent=perf_counter() - started),
        # A setting that is given starts a range that is given as well.
        [key for key in changes_from(settings, options) if key not in ranges],
        storage,
        cluster=cluster,
        refit=refit,
    )


def _is_that_of(begun: SearchFile, requested: Recipe | None) -> bool:
    """Whether a search began with this recipe; also where none is given."""
    return requested is None or with_absolute_files(requested) == with_absolute_files(begun.requested)


def _are_those_of(begun: SearchFile, ranges: Mapping[str, Any]) -> bool:
    """Whether a search began with these ranges; also where none are given."""
    space = Space.from_json(begun.space)
    return not ranges or narrowed(space, ranges, (), begun.base).to_json() == space.to_json()


_TIME = typer.Option(
    help="How long it may take with the comparison, such as 90s, 30m (the default) or 1h30m.",
    metavar="DURATION",
    show_default=False,
)
_TRIALS = typer.Option(min=1, help="How many trials there may be, of all kinds.", show_default=False)
_SPACE = typer.Option(
    help="Ranges (YAML) that replace the declared ones: lines such as `phases.1.lr: {low: 1e-5, high: 1e-3, log: true}`"
    " or `preprocessing.image_size: [160, 224]`.",
    show_default=False,
)
_RESUME = typer.Option("--resume", help="Resume the newest unfinished search.")
_JOIN = typer.Option(
    help="Help another process with the search in this folder, until it has ended.", show_default=False
)
_STORAGE = typer.Option(
    help="Database for the Optuna studies, such as postgresql://…, instead of a file in the folder of the search; "
    "`optuna-dashboard` opens either. Its password is not written down.",
    metavar="URL",
    show_default=False,
)
_REFIT = typer.Option(
    "--refit",
    help="At the end, train the recipe on all images but those of test, into the folder `refit` of the search; with "
    "--resume also for a search that has ended.",
)

add_command(
    "search",
    search,
    signature(
        parameter("time", Annotated[str | None, _TIME], None),
        parameter("trials", Annotated[int | None, _TRIALS], None),
        parameter("space", Annotated[Path | None, _SPACE], None),
        parameter("resume", Annotated[bool, _RESUME], False),
        parameter("join", Annotated[Path | None, _JOIN], None),
        parameter("storage", Annotated[str, _STORAGE], ""),
        parameter("refit", Annotated[bool, _REFIT], False),
        RUNS,
        parameter("cluster", ClusterAddress, None),
    ),
)
