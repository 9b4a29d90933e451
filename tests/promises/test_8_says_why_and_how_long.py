import json
import time
from pathlib import Path
from typing import Any

import pytest

from thaw.data.dataset import Dataset
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.training import fit
from thaw.training.epoch import fit_epoch


def test_every_choice_comes_with_its_reason_and_no_auto_is_left(trained: RunFolder) -> None:
    plan = json.loads(trained.plan.read_text())
    settings = {choice["setting"]: choice for choice in plan["choices"]}
    assert {"task", "backbone", "preprocessing", "device", "precision", "views", "monitor", "cache_gb"} <= set(settings)
    assert all(choice["value"] and len(choice["reason"]) > 5 for choice in plan["choices"])
    assert "auto" not in trained.recipe.read_text().split()


def test_predicted_disk_is_what_the_stores_take(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    finetune(Dataset.open(images), quick, tmp_path / "runs", reporter=NullReporter())
    plan = json.loads(RunFolder(tmp_path / "runs" / "train-1").plan.read_text())
    taken = sum(file.stat().st_size for file in (tmp_path / "cache" / "features").rglob("features.bin"))
    assert plan["predicted"]["disk_bytes"] == taken > 0


def test_memory_is_predicted_before_and_set_beside_what_was_taken(trained: RunFolder) -> None:
    plan = json.loads(trained.plan.read_text())
    assert plan["predicted"]["memory_bytes"] == pytest.approx(plan["actual"]["memory_bytes"], rel=0.2)


def test_time_is_predicted_before_and_set_beside_what_it_took(trained: RunFolder) -> None:
    plan = json.loads(trained.plan.read_text())
    predicted = plan["predicted"]
    assert predicted["extraction_seconds"] > 0 and len(predicted["phase_seconds"]) == 2
    parts = [predicted["extraction_seconds"], *predicted["phase_seconds"]]
    assert predicted["seconds"] == pytest.approx(sum(parts))
    for phase, epoch, planned in zip(
        predicted["phase_seconds"], predicted["epoch_seconds"], trained.read_recipe().phases, strict=True
    ):
        assert phase == pytest.approx(planned.epochs * epoch) and epoch > 0


def test_the_plan_is_written_before_the_first_epoch_and_then_only_what_the_run_took_is_added(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, before = RunFolder(tmp_path / "train-1"), list[dict[str, Any]]()

    def read_plan_first(*arguments: Any) -> Any:
        before.append(json.loads(run.plan.read_text()))
        return fit_epoch(*arguments)

    monkeypatch.setattr(fit, "fit_epoch", read_plan_first)
    started = time.perf_counter()
    finetune(Dataset.open(images), quick, tmp_path, reporter=NullReporter())
    seconds, after = time.perf_counter() - started, json.loads(run.plan.read_text())
    actual = after["actual"]
    assert len(before) == 4 and all(plan == {key: after[key] for key in plan} for plan in before)
    assert after.keys() - before[0].keys() == {"actual", "gains", "skipped"}
    parts = [actual["extraction"], *(phase_seconds for _, _, phase_seconds in actual["phases"])]
    assert 0 < sum(parts) <= actual["seconds"] <= seconds and min(parts) > 0
