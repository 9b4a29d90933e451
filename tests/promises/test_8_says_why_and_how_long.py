import json
from pathlib import Path

import pytest

from thaw.data.dataset import Dataset
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder


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


def test_time_is_predicted_before_and_set_beside_what_it_took(trained: RunFolder) -> None:
    plan = json.loads(trained.plan.read_text())
    predicted = plan["predicted"]
    assert predicted["seconds"] >= predicted["extraction_seconds"] + sum(predicted["phase_seconds"]) > 0
    assert len(predicted["phase_seconds"]) == 2
    assert plan["actual"]["seconds"] > 0
