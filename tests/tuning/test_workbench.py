from dataclasses import replace

import numpy as np
import pytest

from tests.searches import RECIPE
from thaw.data.augment import Augmentation
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError
from thaw.progress import NullReporter
from thaw.trial import prepare
from thaw.tuning.workbench import Workbench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Sixty images of three classes, in groups of four."""
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=20, size=48, classes=("ok", "scratch", "stain"))
    manifest = Dataset.open(folder).manifest
    grouped = manifest.with_columns({"group": [f"part {row // 4}" for row in range(len(manifest))]})
    prepared, _ = prepare(Dataset(grouped), RECIPE, None, NullReporter())
    return Workbench.of(RECIPE, prepared, {}, "accuracy", NullReporter())


def test_images_of_a_group_are_in_one_fold(bench: Workbench) -> None:
    across = bench.across_groups(RECIPE)
    names = np.array(bench.prepared.manifest.column("group"))[bench.sample.rows]
    for name in np.unique(names):
        assert len(np.unique(across.folds[names == name])) == 1
    assert len(np.unique(across.sample.units)) == len(np.unique(names))


def test_the_same_images_have_the_same_features_at_the_plans_size_and_at_another(bench: Workbench) -> None:
    network = bench.network(RECIPE)
    assert network.pixels is bench.prepared.pixels
    other = RECIPE.with_settings({"preprocessing.image_size": 64})
    values = bench.features(bench.network(other), Augmentation(), 0)
    assert len(values) == len(bench.features(network, Augmentation(), 0)) == len(bench.sample.rows)


def test_too_few_images_to_cross_validate_are_refused(bench: Workbench) -> None:
    few = replace(bench.prepared, manifest=bench.prepared.manifest.with_columns({"split": ["test"] * 60}))
    with pytest.raises(DataError, match="fewer than two classes have two images"):
        Workbench.of(RECIPE, few, {}, "accuracy", NullReporter())
