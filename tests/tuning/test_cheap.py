from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.searches import RECIPE
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.progress import NullReporter
from thaw.trial import prepare
from thaw.tuning.cheap import head
from thaw.tuning.workbench import Workbench


def test_what_a_head_predicts_does_not_depend_on_the_labels_it_is_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would, if they chose the epoch: then noise would seem to tell classes apart, whichever way they are named."""
    write_surfaces(tmp_path / "surfaces", images_per_class=40, size=48, classes=("ok", "scratch"))
    prepared, _ = prepare(Dataset.open(tmp_path / "surfaces"), RECIPE, None, NullReporter())
    bench = Workbench.of(RECIPE, prepared, {}, "accuracy", NullReporter())
    (bench.cache / "features").mkdir(parents=True, exist_ok=True)
    width = sum(bench.network(RECIPE).backbone.feature_groups)

    def noise(images: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(images, width)).astype(np.float32)

    monkeypatch.setattr(Workbench, "features", lambda self, network, augmentation, view: noise(len(self.sample.rows)))

    monkeypatch.setattr(Workbench, "val_features", lambda self, network: noise(len(self.prepared.rows("val").rows)))
    targets = bench.sample.targets
    swapped = replace(bench.sample, targets=np.where(bench.folds == 0, 1 - targets, targets))
    changed = {"head.hidden": [16], "phases.0.epochs": 20, "phases.0.lr": 0.3, "views": 1, "class_weights": "none"}
    values = [
        head(RECIPE.with_settings(changed), replace(bench, sample=sample), lambda fold, value: True).value
        for sample in (bench.sample, swapped)
    ]
    assert sum(values) == pytest.approx(1.0)


def test_a_head_on_all_stages_can_follow_one_on_the_last_stage(tmp_path: Path) -> None:
    """The features of validation are extracted in the middle of the first one, and serve both."""
    write_surfaces(tmp_path / "surfaces", images_per_class=40, size=48, classes=("ok", "scratch"))
    prepared, _ = prepare(Dataset.open(tmp_path / "surfaces"), RECIPE, None, NullReporter())
    bench = Workbench.of(RECIPE, prepared, {}, "accuracy", NullReporter())
    changed = {"head.hidden": [16], "phases.0.epochs": 2, "views": 1, "class_weights": "none"}
    for features in ("last", "all"):
        recipe = RECIPE.with_settings({**changed, "head.features": features})
        assert 0.0 <= head(recipe, bench, lambda fold, value: False).value <= 1.0
    width = sum(bench.network(RECIPE).backbone.feature_groups)
    assert bench.val_features(bench.network(RECIPE)).shape[1] == width
