"""Many trials around one plan: which settings are better than those of the plan, if any."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from thaw.cluster import check_address
from thaw.data.dataset import Dataset
from thaw.device import keep_freed_memory, threads_restored
from thaw.errors import RecipeError
from thaw.pipeline.training import Data, opened
from thaw.progress import Reporter
from thaw.recipe import Recipe
from thaw.run_folder.lock import held
from thaw.run_folder.search_folder import SearchFolder
from thaw.terminal.console import ConsoleReporter
from thaw.tuning.begin import Wanted, begin
from thaw.tuning.begin import resume as resume_search
from thaw.tuning.limits import Limits
from thaw.tuning.on_cluster import search_on
from thaw.tuning.search import SearchResult, carry_on
from thaw.tuning.space import fixed_keys
from thaw.tuning.studies import check_installed
from thaw.tuning.workers import check_locks
from thaw.writing import check_writable, path_errors_explained

_TAKEN = "another process works on this search; wait until it has ended, or help it by --join"


@path_errors_explained()
def search(
    data: Data,
    recipe: Recipe | None = None,
    space: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    limits: Limits | None = None,
    fixed: str | Collection[str] = (),
    storage: str = "",
    reporter: Reporter | None = None,
    cluster: str | None = None,
    refit: bool = False,
) -> SearchResult:
    """Search for settings that are better than those of the plan, over one feature cache.

    Args:
        data: Labelled images: a folder or table, here or at an address such as s3://bucket/images, or a `Dataset`.
        recipe: The settings to start from; those in which it differs from the default are not varied, unless `space`
            names them.
        space: Ranges that replace the declared ones, by dotted key: a list of values, or {"low", "high", "log"}.
        runs: The folder in which the search makes its own, `search-N`.
        limits: How long it may take, with the comparison at the end, and how many trials there may be; `None` for
            half an hour.
        fixed: Further settings that are not varied, by dotted key; a section, such as `head`, for all of its settings.
        storage: URL of a database for the Optuna studies; empty for a journal file in the folder of the search.
        reporter: Shows progress; the console by default.
        cluster: Try on a Ray cluster: HOST:PORT of its head, or "local".
        refit: Train the recipe that it finds on all images but those of test as well, and evaluate it on these.

    Returns:
        The recipe to train with, and the comparison of best trial and plan that it rests on.

    Raises:
        PackageError: If Optuna is not installed (extra `search`).
        RecipeError: If a setting or range is wrong, nothing is left to vary, or the time is too short.
        DataError: If the images or labels cannot be used, or with `refit` there are no test images.
        ClusterError: If the cluster cannot be used, or a trial fails there.
        WriteError: If `runs` cannot be written, or the disk is full; what was tried can be resumed. With `cluster` also
            if it is on a drive without file locks.

    Example:
        >>> recipe, quiet = thaw.Recipe.load("recipe.yaml"), thaw.NullReporter()
        >>> found = thaw.search("images", recipe, limits=thaw.Limits(trials=5), reporter=quiet)
        >>> len(found.trials)
        5
    """
    check_installed()
    if cluster:
        check_address(cluster)
    keep_freed_memory()
    check_writable(Path(runs))
    requested = recipe or Recipe()
    kept = fixed_keys(fixed, space or (), requested)
    changed = [line.partition(":")[0].removeprefix("phase_settings.") for line in Recipe().differences(requested)]
    with closing(reporter or ConsoleReporter()) as shown, threads_restored():
        dataset = opened(data, requested, shown)
        wanted = Wanted(requested, space or {}, [*changed, *kept], limits or Limits(), storage, refit)
        search = begin(dataset, wanted, Path(runs), shown)
        with held(search.folder.path, _TAKEN), _saying_what_is_kept(search.folder):
            return search_on(search, cluster) if cluster else _finished(carry_on(search))


@path_errors_explained()
def continue_search(
    data: Data,
    folder: str | Path,
    limits: Limits | None = None,
    joins: bool = False,
    storage: str = "",
    reporter: Reporter | None = None,
    refit: bool = False,
    cluster: str | None = None,
) -> SearchResult | None:
    """Resume a search that was interrupted, or join one that another process works on.

    Args:
        data: The same labelled images.
        folder: The folder of the search.
        limits: New limits; `None` for those that it began with.
        joins: Only help with trials; the process that began the search compares and writes the result. It has the
            limits, so none can be given.
        storage: URL of the database for the Optuna studies, where it needs a password; else as the search began.
        reporter: Shows progress; the console by default.
        refit: Train the recipe that it finds on all images but those of test as well; also of a search that has ended.
        cluster: Go on with trials on a Ray cluster: HOST:PORT of its head, or "local".

    Returns:
        What was found; `None` for a process that joins.

    Raises:
        RecipeError: If limits, a refit or a cluster are asked for by a process that joins.
        DataError: If it is no search, or with `refit` there are no test images.
        ResumeError: If images have changed, or another process conducts the search.
        ClusterError: If the cluster cannot be used, or a trial fails there.
        WriteError: If it joins, or has a cluster, on a drive without file locks.
    """
    if joins and (limits or refit or cluster):
        raise RecipeError(
            "search: limits, a refit and a cluster are for the process that began it or resumes it; join without"
        )
    check_installed()
    if cluster:
        check_address(cluster)
    keep_freed_memory()
    with closing(reporter or ConsoleReporter()) as shown, threads_restored(), ExitStack() as stack:
        begun = SearchFolder.at(Path(folder))
        if joins:
            check_locks(begun)
        else:
            stack.enter_context(held(begun.path, _TAKEN))
            stack.enter_context(_saying_what_is_kept(begun))
        if joins and (reason := begun.read_ended()):
            shown.say(f"{begun.path}: tries no further trial, so there is nothing to help with: {reason}")
            return None
        file = begun.read_file()
        wanted = replace(file, refit=file.refit or refit)
        if limits:
            wanted = replace(wanted, seconds=limits.seconds, trials=limits.trials)
        dataset = data if isinstance(data, Dataset) else opened(data, file.requested, shown)
        resumed = resume_search(dataset, begun, wanted, storage, shown)
        # Only now, because what cannot be resumed stays as it was.
        if wanted != file:
            begun.write_file(wanted)
        if limits:
            # It has not ended any more. If it is killed now, its answer is computed again.
            begun.recipe.unlink(missing_ok=True)
            begun.ended.unlink(missing_ok=True)
        return search_on(resumed, cluster) if cluster else carry_on(resumed, joins)


@contextmanager
def _saying_what_is_kept(folder: SearchFolder) -> Iterator[None]:
    """An interruption within the block says that the search can be resumed."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"{folder.path} keeps every trial that was completed")
        raise


def _finished(result: SearchResult | None) -> SearchResult:
    assert result is not None
    return result
