"""The runs at the end of a search: plan and best trial trained afresh, and the better one on all images but test."""

from __future__ import annotations

from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.evaluation.evaluate import Evaluation
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.refit import refit
from thaw.run import run
from thaw.run_folder import RunFolder
from thaw.run_folder.search_folder import SearchFolder
from thaw.seeds import derive_seed
from thaw.temporary import discard
from thaw.tuning.state import Search

PLAN, WINNER = 1, 2
"""The number of the run of each in the folder `final`."""


def trained_afresh(recipe: Recipe, number: int, folder: SearchFolder, manifest: Manifest) -> RunFolder:
    """The finished run of a recipe with a seed that no trial has used, resumed if it was interrupted.

    Args:
        recipe: Of the plan or of the best trial.
        number: `PLAN` or `WINNER`.
        folder: Of the search.
        manifest: The images with their splits.
    """
    found = _run_of(number, folder)
    fresh = recipe.model_copy(update={"seed": derive_seed(recipe.seed, "afresh") % 2**31})
    _discard_other(found, fresh)
    if found.is_finished:
        return found
    return run(Dataset(manifest), fresh, folder.final, NullReporter(), resumes=found.path.exists()).folder


def refitted(recipe: Recipe, number: int, search: Search) -> Evaluation:
    """The evaluation on test of a recipe trained on all other images, for as long as its run in `final` was best."""
    if not _run_of(number, search.folder).is_finished:
        search.reporter.say("training the plan afresh, to see on validation for how many epochs")
    finished = trained_afresh(recipe, number, search.folder, search.bench.prepared.manifest)
    requested = finished.read_requested()
    assert requested is not None
    _discard_other(search.folder.refit, requested)
    return refit(finished, search.folder.refit, search.reporter)


def _run_of(number: int, folder: SearchFolder) -> RunFolder:
    return RunFolder.numbered(folder.final, number)


def _discard_other(run: RunFolder, recipe: Recipe) -> None:
    """Remove a run of another recipe, of a search that has gone on since and found a better one."""
    if run.path.exists():
        began = run.read_requested()
        if began is None or began.differences(recipe):
            discard(run.path)
