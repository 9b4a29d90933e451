from pathlib import Path

import pytest

from thaw.cli.plan_run import main
from thaw.data.manifest import Manifest
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder


@pytest.mark.slow
def test_a_run_that_is_planned_in_a_folder_of_its_own_is_resumed_elsewhere(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe, runs, folder = tmp_path / "recipe.yaml", tmp_path / "runs", tmp_path / "planned"
    recipe.write_text(quick.to_yaml(), encoding="utf-8")
    runs.mkdir()
    words = [images, runs, folder, "--recipe", recipe, "--set", "phases.0.epochs=1"]
    assert main([str(word) for word in words]) == 0
    plan, splits = RunFolder(folder).read_plan(), Manifest.read(RunFolder(folder).manifest).column("split")
    run = RunFolder.adopt(runs, folder)
    finetune(images, None, runs, resume=True, reporter=NullReporter())
    trained = run.read_plan()
    assert run.is_finished and plan and trained and trained.choices == plan.choices
    assert run.read_recipe().phases[0].epochs == 1 and Manifest.read(run.manifest).column("split") == splits


def test_what_cannot_be_planned_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), str(tmp_path), str(tmp_path / "run")]) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "run").exists()
