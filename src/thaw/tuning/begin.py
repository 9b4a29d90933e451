"""The beginning of a search: a plan and what is tried around it; or a search that was begun before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.backbones.weights import is_int8
from thaw.clock import Clock
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.device import use_threads
from thaw.errors import BackboneError, RecipeError, first_line
from thaw.formats import count, duration
from thaw.planning.backbone_choice import candidate_weights
from thaw.planning.time_limit import TimeLimit
from thaw.progress import Reporter
from thaw.recipe import DEFAULT_BACKBONE, Recipe
from thaw.recipe.network_files import with_absolute_files
from thaw.refit import check_has_test
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.training.loss import IMBALANCE, imbalance
from thaw.trial import earlier_split, plan_trial, prepare_again
from thaw.tuning.levels import LEVELS, SHORT
from thaw.tuning.limits import Limits
from thaw.tuning.recipes import base_recipe, settings_of_plan, trains_head_only
from thaw.tuning.schedule import named
from thaw.tuning.space import Space, default_space, narrowed
from thaw.tuning.state import Search
from thaw.tuning.studies import begin_studies, open_database, open_studies, with_absolute_path, without_password
from thaw.tuning.workbench import Workbench
from thaw.tuning.workers import seconds_so_far


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a search.

    Attributes:
        recipe: The recipe to start from.
        ranges: Ranges that replace the declared ones, by key.
        fixed: Settings that are not varied.
        limits: How long it goes on.
        storage: URL of a database for the studies; empty for a journal in the folder.
        refit: Whether the recipe that is found is trained on all images but those of test.
    """

    recipe: Recipe
    ranges: Mapping[str, Any]
    fixed: Sequence[str]
    limits: Limits
    storage: str = ""
    refit: bool = False


def begin(dataset: Dataset, wanted: Wanted, runs: Path, reporter: Reporter) -> Search:
    """Plan, and begin a search around the plan in a new folder under `runs`.

    Raises `RecipeError` where nothing is left to vary, the time is too short for one trial, or the database of the
    studies cannot be used.
    """
    limits, clock = wanted.limits, Clock(wanted.limits.seconds, wanted.limits.spent)
    requested = with_absolute_files(wanted.recipe)
    if limits.trials is not None and limits.trials < len(LEVELS):
        raise RecipeError(f"--trials {limits.trials}: is too few; the plan alone is {len(LEVELS)}, one of each level")
    if requested.time_limit is not None:
        raise RecipeError("time_limit: is for a single run; omit it, and give the time of the search by --time")
    for key in ("max_latency_ms", "max_size_mb"):
        if getattr(requested, key) is not None:
            raise RecipeError(f"{key}: is for a single run with backbone auto; omit it, and name the candidates")
    for weights in (requested.weights, *requested.candidates.values()):
        if is_int8(Path(weights)):
            raise RecipeError(
                f"{weights}: is in int8, so only the head can train and a search has no stages to thaw; search with "
                "weights in float"
            )
    # Before the plan, which takes a while.
    database = open_database(wanted.storage)
    # A refit is of a run that was trained afresh.
    limit = TimeLimit(clock, trainings=3 if wanted.refit else 1) if limits.seconds is not None else None
    # Candidates are for the trials, whatever backbone the plan has.
    to_plan = requested if requested.backbone == "auto" else requested.model_copy(update={"candidates": {}})
    previous = earlier_split(dataset, requested, runs, reporter)
    planned = plan_trial(dataset, to_plan, previous, reporter, limit=limit)
    recipe, manifest = planned.plan.recipe, planned.prepared.manifest
    if wanted.refit:
        check_has_test(manifest)
    candidates = _candidates(requested, recipe)
    kept = set(wanted.fixed)
    if imbalance(manifest.targets()[manifest.indices("train")], len(manifest.classes)) <= IMBALANCE:
        kept.add("class_weights")
    if not planned.classifier.backbone.has_stages:
        kept.add("head.features")
    if any(key.partition(".")[0] == "augment" for key in wanted.fixed):
        kept |= {"phases.0.augment", "phases.1.augment"}
    if trains_head_only(requested):
        kept |= {*SHORT.settings}
    base = base_recipe(requested, recipe)
    space = narrowed(default_space(candidates, settings_of_plan(recipe)), wanted.ranges, kept, base)
    _check_names(space, wanted.ranges, recipe.backbone, planned.classifier.backbone)
    if limits.seconds is not None and limit and (excess := limit.exceeded_by(planned.plan.forecast)) > 0:
        raise RecipeError(
            f"the time of {duration(limits.seconds)} is too short for one trial, which may take "
            f"{duration(limits.seconds + excess)}; give more time, or use `thaw train`"
        )
    bench = _workbench(requested, recipe, Workbench.of(base, planned.prepared, candidates, recipe.monitor, reporter))
    folder = SearchFolder.create(runs)
    manifest.write(folder.manifest)
    file = SearchFile(
        requested=requested,
        planned=recipe.model_copy(update={"loggers": ()}),
        base=base,
        space=space.to_json(),
        weights=candidates,
        monitor=recipe.monitor,
        seed=requested.seed,
        identity=uuid4().hex[:12],
        storage=without_password(with_absolute_path(wanted.storage)),
        seconds=limits.seconds,
        trials=limits.trials,
        refit=wanted.refit,
        fixed=tuple(sorted(kept)),
        given=tuple(sorted(wanted.ranges)),
        spent=clock.elapsed,
    )
    studies = begin_studies(folder, file, database, space)
    folder.write_file(file)
    return Search(folder, file, space, bench, studies, clock, reporter)


def resume(dataset: Dataset, folder: SearchFolder, file: SearchFile, storage: str, reporter: Reporter) -> Search:
    """A search that was begun, to go on with or to join.

    Args:
        dataset: The images that it began with.
        folder: Of the search.
        file: What it began with; the limits may be others.
        storage: URL of the database of the studies with its password; empty for the one of the file.
        reporter: Shows progress.

    Raises:
        DataError: There are no test images for the refit.
        ResumeError: Images have changed, or its studies are not in the database.
    """
    records = folder.read_records()
    clock = Clock(file.seconds, max(file.spent, seconds_so_far(folder), *(record.ended for record in records)))
    manifest, space = Manifest.read(folder.manifest), Space.from_json(file.space)
    if file.refit:
        check_has_test(manifest)
    use_threads(file.planned.threads)
    prepared, _ = prepare_again(dataset.as_task(file.planned.task), file.planned, manifest, reporter)
    bench = Workbench.of(file.base, prepared, file.weights, file.monitor, reporter)
    bench = _workbench(file.requested, file.planned, bench)
    studies = open_studies(folder, file, open_database(storage or file.storage), space)
    reporter.say(f"resuming {folder.path}, {count(len(records), 'trial')} done")
    return Search(folder, file, space, bench, studies, clock, reporter, _known=dict(named(records)))


def _check_names(space: Space, given: Mapping[str, Any], own: str, planned: Backbone) -> None:
    """Raise `RecipeError` where every trial with a network or a cut that was given would fail, as there is none.

    Args:
        space: Their ranges.
        given: The ranges that were given, by key.
        own: Name of the network of the plan.
        planned: That network, in which cuts are looked up where no trial has another one.
    """
    networks = space.values("backbone") or (own,)
    try:
        for name in networks if "backbone" in given else ():
            build(Recipe(backbone=name, weights="random"))
        for cut in space.values("phases.1.cut") if "phases.1.cut" in given and networks == (own,) else ():
            planned.cut(cut)
    except BackboneError as error:
        raise RecipeError(f"space: {first_line(error)}") from error


def _workbench(requested: Recipe, planned: Recipe, bench: Workbench) -> Workbench:
    """With folds across groups where the plan found that images like those of training are too optimistic."""
    differ = requested.keep_phase == "auto" and planned.keep_phase == "standard_error"
    return bench.across_groups(planned) if differ else bench


def _candidates(requested: Recipe, planned: Recipe) -> dict[str, str]:
    """The weights of each network to choose from, by name: those that are here, or the one that the recipe names."""
    own = {planned.backbone: planned.weights}
    is_named = requested.backbone not in (DEFAULT_BACKBONE, "auto") or requested.weights != "published"
    # The plan's network keeps the plan's weights.
    return own if is_named and not requested.candidates else own | dict(candidate_weights(requested)) | own
