"""`thaw evaluate RUN --folds K --seeds S`: cross-validation of a run, repeated with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import numpy as np

from thaw.backbones import build
from thaw.cache import cache_folder
from thaw.classifier.decision import Decision
from thaw.cluster import Cluster, Device
from thaw.data.dataset import Dataset
from thaw.data.group_split import assign_groups, with_enough_groups
from thaw.data.groups import as_grouped
from thaw.data.manifest import Manifest
from thaw.data.prepare import DataPreparation, Prepared
from thaw.device import choose_device
from thaw.errors import DataError
from thaw.evaluation.folds import (
    CrossValidation,
    FitAll,
    Fold,
    FoldedData,
    FoldOutputs,
    repeated_cross_validation,
)
from thaw.evaluation.records import read_records
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import pooled_features
from thaw.formats import count, listed
from thaw.inspection import linear_probe
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Recipe, ResolvedRecipe
from thaw.recipe.network_files import files_of, with_absolute_files
from thaw.remote import mirrored_files
from thaw.run import run
from thaw.run_folder import RunFolder

HEADS = "a linear head on the frozen network, from cached features"
WHOLE = "the whole recipe"


def cross_validate(
    folder: RunFolder, folds: int, seeds: int, whole: bool, reporter: Reporter, cluster: Cluster | None = None
) -> CrossValidation:
    """Metrics over all images of a run's data, each predicted by a classifier that was trained without it.

    Args:
        folder: A finished run.
        folds: Number of folds, at least 2.
        seeds: Number of repeats, each with another split into folds.
        whole: Train the whole recipe each time, in runs under `folder/folds`, instead of a linear head, which takes
            seconds.
        reporter: Shows progress.
        cluster: Where each fold of each seed is trained; in this process for `None`.

    Raises:
        DataError: For too few folds or images, for a linear head on images with several labels, or where one of the
            whole runs would have too few images of a class to train and validate on.
    """
    if folds < 2 or seeds < 1:
        raise DataError(f"--folds {folds} --seeds {seeds}: needs at least two folds and one seed")
    recipe, known = folder.read_recipe(), Manifest.read(folder.manifest)
    recipe = recipe.model_copy(update={"split": as_grouped(recipe.split, known)})
    dataset = Dataset(known.with_columns({"split": [None] * len(known)}))
    if known.task == "multilabel" and not whole:
        raise DataError("several labels per image: not supported for a linear head; add --whole")
    backbone = build(recipe)
    # Of a mirror in the cache, which may have been cleared.
    mirrored_files((file for file in known.files() if not file.exists()), reporter.bar)
    preparation = DataPreparation(recipe.decode, recipe.split, None, cache_folder(), reporter.bar)
    prepared = preparation.prepare(dataset, backbone.facts.pixels)
    rows = np.flatnonzero(np.array(prepared.manifest.column("status")) == "ok")
    if whole:
        # A run keeps the validation images of an earlier one, which another number of folds tests elsewhere.
        runs = folder.path / "folds" / f"of-{folds}"
        fit_all = _whole_runs(recipe, prepared, rows, runs, cluster)
    else:
        device = choose_device(recipe.device).device
        frozen = FrozenPart(backbone.to(device), device, recipe.engine)
        bar = reporter.bar("extract features")
        cache = FeatureCache(cache_folder(), "float16", recipe.cache_bytes)
        features = pooled_features(prepared.pixels, rows, frozen, recipe.seed, cache, bar)
        fit_all = _heads(features, prepared, rows, cluster)
    manifest, few = with_enough_groups(prepared.manifest, rows.tolist(), prepared.duplicates, folds)
    if few:
        reporter.say(f"fewer than {count(folds, 'group')}, so images are divided one by one: {listed(few)}")
    how, bar = (WHOLE if whole else HEADS), reporter.bar("train and test")
    data = FoldedData(manifest, rows, prepared.duplicates, folds)
    return repeated_cross_validation(how, fit_all, data, seeds, bar)


def _heads(values: np.ndarray, prepared: Prepared, rows: np.ndarray, cluster: Cluster | None) -> FitAll:
    shared = values, prepared.manifest.targets()[rows], len(prepared.manifest.classes)
    if cluster is None:
        return partial(starmap, partial(head_of_fold, *shared))
    return partial(_on_cluster, cluster, head_of_fold, shared, Device(1), ())


def head_of_fold(
    values: np.ndarray, targets: np.ndarray, classes: int, train: np.ndarray, test: np.ndarray, seed: int, number: int
) -> FoldOutputs:
    """Outputs for the features at positions `test`, by a linear head fitted at `train`; the most likely class.

    It depends on neither the seed nor the number of the fold.
    """
    with linear_probe.one_thread():
        head = linear_probe.fit_head(values[train], targets[train])
        probabilities = np.zeros((len(test), classes))
        probabilities[:, head.classes_] = head.predict_proba(values[test])
    return FoldOutputs(probabilities, Decision().labels(probabilities, "multiclass"))


def _whole_runs(
    recipe: ResolvedRecipe, prepared: Prepared, rows: np.ndarray, runs: Path, cluster: Cluster | None
) -> FitAll:
    runs.mkdir(parents=True, exist_ok=True)
    prepared.manifest.write(runs / "manifest.parquet")
    place = str(runs.absolute())
    check = partial(_check_can_train, recipe, prepared, rows)
    if cluster is None:
        return partial(_if_all, check, partial(starmap, partial(run_of_fold, recipe.model_dump_json(), place, rows)))
    threads = min(recipe.threads or cluster.threads, cluster.threads)
    recipe = with_absolute_files(recipe).model_copy(update={"threads": threads})
    shared = recipe.model_dump_json(), place, rows
    device = Device(threads, int(choose_device(recipe.device).device.type != "cpu"))
    # A folder whose storage is not mounted on a node is there too, and empty.
    image, networks = prepared.manifest.file(int(rows[0])), files_of({recipe.backbone: recipe.weights})
    sees = runs.absolute(), image.absolute(), *networks
    return partial(_if_all, check, partial(_on_cluster, cluster, run_of_fold, shared, device, sees))


def _if_all(check: Callable[[Fold], None], fit_all: FitAll, folds: Iterable[Fold]) -> Iterable[FoldOutputs]:
    """The results of folds, of which none is trained before all are checked."""
    divided = list(folds)
    for fold in divided:
        check(fold)
    return fit_all(divided)


def _check_can_train(recipe: ResolvedRecipe, prepared: Prepared, rows: np.ndarray, fold: Fold) -> None:
    """Raise `DataError` for a fold whose run could not split validation off from its training images."""
    manifest, split = _divided(prepared.manifest, rows, fold.train, fold.test), _with_seed(recipe, fold.seed).split
    try:
        assign_groups(manifest, split, None, prepared.duplicates)
    except DataError as error:
        raise DataError(
            f"{error}, or try more folds: these are left to train and validate on in fold {fold.number}"
        ) from error


def run_of_fold(
    recipe: str, runs: str, rows: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int, number: int
) -> FoldOutputs:
    """Outputs for the rows at positions `test`, by a run on those at `train`, and with its decision.

    Validation is split off from `train`. Each fold has a folder of runs to itself: a run gives images the split that
    they had in an earlier one in its folder, and no fold may depend on another.

    Args:
        recipe: As JSON.
        runs: The folder with the manifest of the data, in which the fold has its own.
        rows: (N,) int, the rows of the manifest that positions stand for.
        train, test, seed, number: As in `Fold`.
    """
    manifest = _divided(Manifest.read(Path(runs) / "manifest.parquet"), rows, train, test)
    reseeded = _with_seed(Recipe.model_validate_json(recipe), seed)
    finished = run(Dataset(manifest), reseeded, Path(runs) / f"seed-{seed}-fold-{number}", NullReporter())
    records = read_records(finished.folder.predictions, "test")
    place = {path: index for index, path in enumerate(records.paths)}
    paths = manifest.column("path")
    tested = [place[paths[row]] for row in rows[test]]
    return FoldOutputs(records.scored.probabilities[tested], records.scored.predicted[tested])


def _divided(manifest: Manifest, rows: np.ndarray, train: np.ndarray, test: np.ndarray) -> Manifest:
    """The manifest with the rows at positions `test` in test, and those at `train` in train."""
    splits: list[str | None] = [None] * len(manifest)
    for positions, name in ((train, "train"), (test, "test")):
        for row in rows[positions]:
            splits[row] = name
    return manifest.with_columns({"split": splits})


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"seed": seed, "split": recipe.split.model_copy(update={"seed": seed})})


def _on_cluster(
    cluster: Cluster,
    fit: Callable[..., FoldOutputs],
    shared: Sequence[object],
    device: Device,
    sees: Sequence[Path],
    folds: Iterable[Fold],
) -> Iterator[FoldOutputs]:
    """The results of folds that are fitted on a cluster, with what all of them take."""
    cluster.check(sees)
    put = [cluster.put(value) for value in shared]
    return cluster.starmap(fit, ((*put, *fold) for fold in folds), device, sees)
