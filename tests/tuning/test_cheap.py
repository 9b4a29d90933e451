from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.searches import RECIPE
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.progress import NullReporter
from thaw.selection.scores import compare
from thaw.trial import prepare
from thaw.tuning import cheap
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


@pytest.mark.parametrize("monitor", ["balanced_accuracy", "macro_f1", "mean_average_precision"])
def test_heads_that_predict_the_same_have_the_same_scores_fitted_in_all_folds_at_once_or_one_by_one(
    monitor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a class is rarer in one fold than in another one."""
    write_surfaces(tmp_path / "surfaces", images_per_class=40, size=48, classes=("ok", "scratch"))
    for file in sorted((tmp_path / "surfaces" / "scratch").iterdir())[17:]:
        file.unlink()
    prepared, _ = prepare(Dataset.open(tmp_path / "surfaces"), RECIPE, None, NullReporter())
    bench = Workbench.of(RECIPE, prepared, {}, monitor, NullReporter())
    likely = np.random.default_rng(0).random(len(bench.folds))
    predicted = np.stack([1.0 - likely, likely], axis=1)
    monkeypatch.setattr(cheap, "predict_folds", lambda *_: predicted)
    monkeypatch.setattr(cheap, "_fitted", lambda recipe, bench, network, values, trained, tested: predicted[tested])
    reported: list[float] = []

    def on_fold(fold: int, value: float) -> bool:
        reported.append(value)
        return False

    recipe = RECIPE.with_settings({"views": 1, "class_weights": "none"})
    measured = [head(recipe.with_settings({"head.hidden": hidden}), bench, on_fold) for hidden in ([], [16])]
    linear, one_by_one = measured
    assert compare(linear.scores, one_by_one.scores, np.arange(len(linear.scores))).standard_error == 0.0
    assert (linear.value, linear.standard_error) == (one_by_one.value, one_by_one.standard_error)
    assert linear.by_fold == one_by_one.by_fold and tuple(reported) == linear.by_fold + one_by_one.by_fold


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
