"""Whether the best trial is better than the plan, and how much of the best of several values is luck."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from thaw.data.manifest import Manifest
from thaw.evaluation.compare import Comparison
from thaw.metrics import Estimate
from thaw.recipe import Monitor
from thaw.run_folder import RunFolder
from thaw.run_folder.search_folder import SearchFolder
from thaw.run_folder.trial_record import TrialRecord
from thaw.tuning import verdict as module
from thaw.tuning.verdict import judge, optimism, verdict_on


def trials(scores: np.ndarray) -> list[TrialRecord]:
    return [
        TrialRecord("full", number, "sampled", {}, "complete", value=float(each.mean()), scores=tuple(map(float, each)))
        for number, each in enumerate(scores)
    ]


def test_the_optimism_is_that_of_the_best_of_equally_good_trials() -> None:
    draws, shown, real = np.random.default_rng(0), [], []
    for seed in range(60):
        scores = (draws.random((4, 150)) < 0.8).astype(float)
        shown.append(optimism(trials(scores), np.arange(150), seed))
        real.append(scores.mean(axis=1).max() - 0.8)
    assert abs(np.mean(shown) - np.mean(real)) < 0.25 * np.mean(real)


def test_copies_of_an_image_are_drawn_together() -> None:
    scores = (np.random.default_rng(1).random((4, 50)) < 0.8).astype(float)
    once = optimism(trials(scores), np.arange(50), 0)
    copied = optimism(trials(np.repeat(scores, 4, axis=1)), np.repeat(np.arange(50), 4), 0)
    assert abs(once - copied) < 0.2 * once
    assert optimism(trials(np.repeat(scores, 4, axis=1)), np.arange(200), 0) < copied


def test_one_trial_was_not_chosen() -> None:
    assert optimism(trials(np.ones((1, 10))), np.arange(10), 0) == 0


def compared(name: str, change: Estimate, of_plan: int, of_trial: int, p_value: float | None) -> Comparison:
    return Comparison(100, 0, of_plan, of_trial, p_value, {name: change})


def test_a_best_trial_is_not_better_where_the_comparison_of_two_runs_sees_no_difference() -> None:
    found = compared("accuracy", Estimate(0.05, 0.01, 0.1), 0, 5, 0.0625)
    assert found.verdict.startswith("No significant difference")
    verdict = verdict_on(found, "accuracy", "test", 0.0)
    assert not verdict.is_better
    assert verdict.sentence == (
        "No gain beyond noise: the best trial compared with the plan has +5.0 points accuracy (95% interval +1.0 to "
        "+10.0) on 100 test images that no trial has seen."
    )
    worse = verdict_on(compared("accuracy", Estimate(-0.05, -0.1, -0.01), 5, 0, 0.0625), "accuracy", "test", 0.0)
    assert worse.sentence.startswith("No gain beyond noise")


def test_a_difference_that_the_exact_test_sees_too_is_one() -> None:
    better = compared("accuracy", Estimate(0.08, 0.03, 0.13), 0, 8, 0.008)
    assert verdict_on(better, "accuracy", "test", 0.0).is_better
    worse = verdict_on(compared("accuracy", Estimate(-0.08, -0.13, -0.03), 8, 0, 0.008), "accuracy", "test", 0.0)
    assert worse.sentence.startswith("The plan is better: the best trial has -8.0 points accuracy")


def test_validation_images_that_chose_the_best_trial_do_not_make_it_better_than_the_plan() -> None:
    better = compared("accuracy", Estimate(0.08, 0.03, 0.13), 0, 8, 0.008)
    verdict = verdict_on(better, "accuracy", "val", 0.0)
    assert not verdict.is_better
    assert verdict.sentence == (
        "No test images, so the plan stays: the best trial has +8.0 points accuracy (95% interval +3.0 to +13.0) on "
        "100 validation images that have chosen the best trial."
    )


def test_a_lower_loss_is_better() -> None:
    lower = compared("loss", Estimate(-0.1, -0.15, -0.05), 0, 0, 1.0)
    assert verdict_on(lower, "loss", "test", 0.0).is_better


@pytest.mark.parametrize(
    ("monitor", "is_required", "is_said"),
    [("accuracy", True, True), ("accuracy", False, False), ("mean_average_precision", True, False)],
)
def test_a_comparison_by_decisions_is_called_that_where_it_changes_the_metric(
    monitor: Monitor,
    is_required: bool,
    is_said: bool,
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "train-1")))
    table = pq.read_table(run.predictions)
    index = table.column_names.index("predicted")
    pq.write_table(table.set_column(index, "predicted", table.column("labels")), run.predictions)
    monkeypatch.setattr(module, "trained_afresh", lambda *_: run)
    decision = {"decision": {"recall": {"scratch": 1.0}}} if is_required else {}
    plan = run.read_recipe().with_settings({"monitor": monitor, **decision})
    found = judge(plan, plan, SearchFolder(tmp_path), Manifest.read(run.manifest), 0.0)
    assert found.sentence.endswith("trials are ranked without one.") == is_said
