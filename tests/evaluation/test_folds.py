import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from thaw.classifier.decision import Decision
from thaw.data.manifest import Manifest
from thaw.data.split_units import groups_of
from thaw.errors import DataError
from thaw.evaluation.folds import Fold, FoldedData, FoldOutputs, repeated_cross_validation
from thaw.metrics import truth_of
from thaw.pipeline import cross_validate
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder


@pytest.fixture
def manifest(trained: RunFolder) -> Manifest:
    return Manifest.read(trained.manifest)


def test_every_image_is_tested_once_and_groups_are_not_split(manifest: Manifest) -> None:
    rows, duplicates = np.arange(len(manifest)), ((0, 20), (20, 30))
    groups, tested = groups_of(manifest, rows, list(duplicates)), []
    for train, test in FoldedData(manifest, rows, duplicates, 4).split(seed=0):
        tested += test.tolist()
        assert not set(groups[train]) & set(groups[test])
    assert sorted(tested) == rows.tolist()


def test_folds_depend_on_the_seed_only(manifest: Manifest) -> None:
    rows = np.arange(len(manifest))

    def folds(seed: int) -> list[list[int]]:
        return [test.tolist() for _, test in FoldedData(manifest, rows, (), 3).split(seed)]

    assert folds(1) == folds(1) != folds(2)


def test_a_class_with_fewer_images_than_folds_is_named(manifest: Manifest) -> None:
    with pytest.raises(DataError, match="ok has 12 images, too few for 13 folds"):
        list(FoldedData(manifest, np.arange(len(manifest)), (), 13).split(0))


def test_seeds_that_differ_have_a_standard_deviation(manifest: Manifest) -> None:
    rng = np.random.default_rng(0)

    def guess(folds: Iterable[Fold]) -> Iterator[FoldOutputs]:
        for fold in folds:
            probabilities = rng.dirichlet(np.ones(3), len(fold.test))
            yield FoldOutputs(probabilities, Decision().labels(probabilities, "multiclass"))

    data = FoldedData(manifest, np.arange(len(manifest)), (), 3)
    found = repeated_cross_validation("guesses", guess, data, 4, lambda done, total: None)
    deviation = found.standard_deviation("accuracy")
    assert deviation is not None and deviation > 0 and 0.1 < found.mean("accuracy") < 0.6
    assert found.images == len(manifest) and len(found.by_seed) == 4


def test_heads_on_cached_features_give_the_same_result_again(trained: RunFolder) -> None:
    found = cross_validate(trained.path, folds=3, seeds=2, reporter=NullReporter())
    assert "cached features" in found.method and len(found.by_seed) == 2
    assert found == cross_validate(trained.path, folds=3, seeds=2, reporter=NullReporter())


def test_whole_runs_test_every_image_and_are_kept(trained: RunFolder) -> None:
    found = cross_validate(trained.path, folds=2, seeds=1, whole=True, reporter=NullReporter())
    assert found.by_seed[0]["accuracy"] and found.by_seed[0]["accuracy"].high > 0
    left = sorted((trained.path / "folds").glob("of-2/seed-0-fold-*/train-1"))
    assert len(left) == 2
    tested = [set(np.array(Manifest.read(RunFolder(run).manifest).column("path"))[indices(run)]) for run in left]
    assert not tested[0] & tested[1] and len(tested[0] | tested[1]) == 36


@pytest.mark.slow
def test_whole_runs_do_not_depend_on_those_with_another_number_of_folds(trained: RunFolder, tmp_path: Path) -> None:
    def runs(*numbers: int) -> list[list[str | None]]:
        """The splits of the last number of folds."""
        place = tmp_path / "-".join(map(str, numbers))
        shutil.copytree(trained.path, place, ignore=shutil.ignore_patterns("folds"))
        for folds in numbers:
            cross_validate(place, folds, seeds=1, whole=True, reporter=NullReporter())
        found = sorted((place / "folds" / f"of-{numbers[-1]}").glob("*/train-1"))
        return [Manifest.read(RunFolder(each).manifest).column("split") for each in found]

    assert len(runs(2)) == 2 and runs(3, 2) == runs(2, 2)


def indices(run: Path) -> np.ndarray:
    return Manifest.read(RunFolder(run).manifest).indices("test")


def test_one_fold_is_refused(trained: RunFolder) -> None:
    with pytest.raises(DataError, match="at least two folds"):
        cross_validate(trained.path, folds=1, reporter=NullReporter())


def test_labels_are_those_that_the_folds_decided_on(manifest: Manifest) -> None:
    """Such as by class weights or thresholds, under which the most likely class is not always predicted."""
    rows = np.arange(len(manifest))
    truth = truth_of(manifest.targets(), len(manifest.classes))

    def decided(folds: Iterable[Fold]) -> Iterator[FoldOutputs]:
        return (FoldOutputs(np.full((len(fold.test), 3), 1 / 3), truth[fold.test]) for fold in folds)

    found = repeated_cross_validation("known", decided, FoldedData(manifest, rows, (), 3), 1, lambda done, total: None)
    assert found.mean("accuracy") == 1.0
