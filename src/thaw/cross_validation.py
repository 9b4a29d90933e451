"""`thaw evaluate RUN --folds K --seeds S`: cross-validation of a run, repeated with several seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thaw.backbones import build
from thaw.cache import cache_folder
from thaw.data.dataset import Dataset
from thaw.data.group_split import with_enough_groups
from thaw.data.groups import as_grouped
from thaw.data.manifest import Manifest
from thaw.data.prepare import DataPreparation, Prepared
from thaw.device import choose_device
from thaw.errors import DataError
from thaw.evaluation.folds import CrossValidation, Fit, FoldedData, repeated_cross_validation
from thaw.evaluation.records import read_records
from thaw.features.engines import FrozenPart
from thaw.features.pooled import pooled_features
from thaw.formats import count, listed
from thaw.inspection import linear_probe
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Recipe
from thaw.run import run
from thaw.run_folder import RunFolder

HEADS = "a linear head on the frozen network, from cached features"
WHOLE = "the whole recipe"


def cross_validate(folder: RunFolder, folds: int, seeds: int, whole: bool, reporter: Reporter) -> CrossValidation:
    """Metrics over all images of a run's data, each predicted by a classifier that was trained without it.

    Args:
        folder: A finished run.
        folds: Number of folds, at least 2.
        seeds: Number of repeats, each with another split into folds.
        whole: Train the whole recipe each time, in runs under `folder/folds`, instead of a linear head, which takes
            seconds.
        reporter: Shows progress.

    Raises:
        DataError: For too few folds or images, or for a linear head on images with several labels.
    """
    if folds < 2 or seeds < 1:
        raise DataError(f"--folds {folds} --seeds {seeds}: needs at least two folds and one seed")
    recipe, known = folder.read_recipe(), Manifest.read(folder.manifest)
    recipe = recipe.model_copy(update={"split": as_grouped(recipe.split, known)})
    dataset = Dataset(known.with_columns({"split": [None] * len(known)}))
    if known.task == "multilabel" and not whole:
        raise DataError("several labels per image: not supported for a linear head; add --whole")
    backbone = build(recipe)
    preparation = DataPreparation(recipe.decode, recipe.split, None, cache_folder(), reporter.bar)
    prepared = preparation.prepare(dataset, backbone.facts.pixels)
    rows = np.flatnonzero(np.array(prepared.manifest.column("status")) == "ok")
    if whole:
        fit = _whole_run(recipe, prepared, rows, folder.path / "folds")
    else:
        device = choose_device(recipe.device).device
        frozen = FrozenPart(backbone.to(device), device, recipe.engine)
        bar = reporter.bar("extract features")
        fit = _head(pooled_features(prepared.pixels, rows, frozen, recipe.seed, cache_folder(), bar), prepared, rows)
    manifest, few = with_enough_groups(prepared.manifest, rows.tolist(), prepared.duplicates, folds)
    if few:
        reporter.say(f"fewer than {count(folds, 'group')}, so images are divided one by one: {listed(few)}")
    how, bar = (WHOLE if whole else HEADS), reporter.bar("train and test")
    data = FoldedData(manifest, rows, prepared.duplicates, folds)
    return repeated_cross_validation(how, fit, data, seeds, bar)


def _head(values: np.ndarray, prepared: Prepared, rows: np.ndarray) -> Fit:
    classes = prepared.manifest.targets()[rows]

    def fit(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        with linear_probe.one_thread():
            head = linear_probe.fit_head(values[train], classes[train])
            probabilities = np.zeros((len(test), len(prepared.manifest.classes)))
            probabilities[:, head.classes_] = head.predict_proba(values[test])
        return probabilities

    return fit


def _whole_run(recipe: Recipe, prepared: Prepared, rows: np.ndarray, runs: Path) -> Fit:
    """Train on the other folds, from which validation is split off, in a run folder of its own."""
    manifest = prepared.manifest
    paths = manifest.column("path")

    def fit(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        splits: list[str | None] = [None] * len(manifest)
        for positions, name in ((train, "train"), (test, "test")):
            for row in rows[positions]:
                splits[row] = name
        dataset = Dataset(manifest.with_columns({"split": splits}))
        split = recipe.split.model_copy(update={"seed": seed})
        reseeded = recipe.model_copy(update={"seed": seed, "split": split})
        finished = run(dataset, reseeded, runs, NullReporter())
        records = read_records(finished.folder.predictions, "test")
        place = {path: index for index, path in enumerate(records.paths)}
        return records.scored.probabilities[[place[paths[row]] for row in rows[test]]]

    return fit
