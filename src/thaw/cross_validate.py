"""`thaw evaluate RUN --folds K --seeds S`: the recipe of a run, trained again and again on other parts of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thaw import run
from thaw.backbones import build
from thaw.cache import cache_folder
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.prepare import Prepared, prepare
from thaw.device import choose_device
from thaw.errors import DataError
from thaw.evaluation.folds import Fit, Repeats, repeat
from thaw.evaluation.records import read_records
from thaw.features.engines import FrozenPart
from thaw.features.pooled import pooled_features
from thaw.inspection import linear_probe as probing
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder

HEADS = "a linear head on the frozen network, from stored features"
WHOLE = "whole runs of the recipe"


def cross_validate(folder: RunFolder, folds: int, seeds: int, whole: bool, reporter: Reporter) -> Repeats:
    """Figures of every image of a run's data, each tested by a classifier that never saw it.

    A linear head on the frozen network takes seconds and says how much the figures hang on the division of the data;
    `whole` trains the recipe as it stands each time, and leaves the runs in `folder/folds`. Raises `DataError`.
    """
    if folds < 2 or seeds < 1:
        raise DataError(f"--folds {folds} --seeds {seeds}: needs two folds and one seed at least")
    recipe, known = Recipe.load(folder.recipe), Manifest.read(folder.manifest)
    dataset = Dataset(known.with_columns({"split": [None] * len(known)}))
    if known.task == "multilabel" and not whole:
        raise DataError("several labels an image: a linear head from stored features is not offered; add --whole")
    backbone = build(recipe)
    spec = backbone.facts.pixels
    prepared = prepare(dataset, spec, recipe.decode, recipe.split, None, cache_folder(), reporter.bar)
    rows = np.flatnonzero(np.array(prepared.manifest.column("status")) == "ok")
    if whole:
        fit = _whole_run(recipe, prepared, rows, folder.path / "folds")
    else:
        device = choose_device(recipe.device).device
        frozen = FrozenPart(backbone.to(device), device, recipe.resolved_engine)
        bar = reporter.bar("look at every image as it is")
        fit = _head(pooled_features(prepared.pixels, rows, frozen, recipe.seed, cache_folder(), bar), prepared, rows)
    how, bar = (WHOLE if whole else HEADS), reporter.bar("train and test")
    return repeat(how, fit, prepared.manifest, rows, prepared.duplicates, folds, seeds, bar)


def _head(values: np.ndarray, prepared: Prepared, rows: np.ndarray) -> Fit:
    classes = prepared.manifest.targets()[rows]

    def fit(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        with probing.one_thread():
            head = probing.fit_head(values[train], classes[train])
            probabilities = np.zeros((len(test), len(prepared.manifest.classes)))
            probabilities[:, head.classes_] = head.predict_proba(values[test])
        return probabilities

    return fit


def _whole_run(recipe: Recipe, prepared: Prepared, rows: np.ndarray, runs: Path) -> Fit:
    """Train on what is not in the fold, with a validation part taken out of it, in a run folder of its own."""
    manifest = prepared.manifest
    paths = manifest.column("path")

    def fit(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        splits: list[str | None] = [None] * len(manifest)
        for positions, name in ((train, "train"), (test, "test")):
            for row in rows[positions]:
                splits[row] = name
        dataset = Dataset(manifest.with_columns({"split": splits}))
        dealt = recipe.split.model_copy(update={"seed": seed})
        finished = run.train_once(
            dataset, recipe.model_copy(update={"seed": seed, "split": dealt}), runs, NullReporter()
        )
        records = read_records(finished.folder.predictions, "test")
        place = {path: index for index, path in enumerate(records.paths)}
        return records.scored.probabilities[[place[paths[row]] for row in rows[test]]]

    return fit
