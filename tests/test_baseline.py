"""A run that measures and trains for long has a baseline first, which changes nothing that follows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import outcome
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError, ResumeError
from thaw.features.probe import EngineChoice
from thaw.pipeline import load, predict
from thaw.planning import draft, measuring, selecting
from thaw.progress import NullReporter
from thaw.recipe import AugmentSettings, MeasureSettings, PreprocessingSettings, Recipe
from thaw.refit import refit
from thaw.run import finish, run
from thaw.run_folder import RunFolder
from thaw.training import checkpoint
from thaw.trial import PlannedTrial, Trial, plan_trial

RECIPE = Recipe(
    backbone="mobilenetv3_small_050",
    weights="random",
    engine="pytorch-fp32",
    precision="fp32",
    strategy="head",
    # Measured: the features of the head, and the augmentation.
    measure=MeasureSettings(seconds=1000, image_sizes=()),
    preprocessing=PreprocessingSettings(image_size=64, crop_mode="center"),
)


class Sentences(NullReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=30, size=64, classes=("ok", "scratch", "stain"))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured in one test is not remembered in the next."""
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_baseline_can_be_used_while_the_plan_still_measures_and_the_run_resumes(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    dataset, reporter, folder = Dataset.open(surfaces), Sentences(), RunFolder(tmp_path / "runs" / "train-1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(selecting, "_ask_of_other_views", interrupted)
        run(dataset, RECIPE, tmp_path / "runs", reporter)
    (sentence,) = [line for line in reporter.said if line.startswith("baseline after ")]
    assert "validation accuracy" in sentence and str(folder.baseline) in sentence
    assert load(folder.baseline).classes == dataset.classes
    files = sorted((surfaces / "ok").iterdir())
    assert [each.status for each in predict(folder.baseline, files)] == ["ok"] * 30
    with pytest.raises(DataError, match=r"has not finished; resume it .* or use its baseline, a linear head: "):
        predict(folder.path, files)

    with pytest.raises(ResumeError, match="seed: 0 -> 1"):
        run(dataset, RECIPE.model_copy(update={"seed": 1}), tmp_path / "runs", NullReporter(), resumes=True)
    written = (folder.baseline / "config.json").stat().st_mtime_ns
    run(dataset, None, tmp_path / "runs", NullReporter(), resumes=True)
    plan = folder.read_plan()
    assert plan is not None and plan.requested == RECIPE and not folder.requested.exists()
    assert folder.is_finished and (folder.baseline / "config.json").stat().st_mtime_ns == written
    assert len(predict(folder.path, files)) == 30


def test_a_baseline_changes_nothing_that_comes_after_it(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for number, seconds in enumerate((0.0, 1e9)):
        monkeypatch.setenv("THAW_CACHE", str(tmp_path / f"cache-{number}"))
        monkeypatch.setattr(draft, "BASELINE_FROM", seconds)
        # A cut below the head, so that features of another width are taken in between.
        recipe = RECIPE.with_settings({"strategy": "top", "phase_settings": {"phases.1.epochs": 1}})
        runs = tmp_path / f"runs-{number}"
        run(Dataset.open(surfaces), recipe, runs, NullReporter())
        outcomes.append(outcome(RunFolder(runs / "train-1")))
    assert outcomes[0] == outcomes[1]
    assert (tmp_path / "runs-0" / "train-1" / "baseline").is_dir()
    assert not (tmp_path / "runs-1" / "train-1" / "baseline").exists()


@pytest.mark.parametrize("saved_before", [0, 1, 2, 3])
def test_a_first_phase_that_is_the_baseline_takes_its_head_also_when_killed_meanwhile(
    saved_before: int, surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    dataset, reporter, folder = Dataset.open(surfaces), Sentences(), RunFolder(tmp_path / "runs" / "train-1")
    recipe = RECIPE.with_settings({"augment.preset": "none"})
    save, saved, is_killed, written = checkpoint.Checkpoints.save, list[str](), list[bool](), checkpoint._replace

    def slowly(*given: Any) -> None:
        # What has not been written yet is lost, as in a process that is killed.
        time.sleep(0.05)
        if not is_killed:
            written(*given)

    def killed(checkpoints: checkpoint.Checkpoints, name: checkpoint.Name, *others: Any) -> None:
        if checkpoints.folder == folder.checkpoints:
            if len(saved) == saved_before:
                is_killed.append(True)
                raise KeyboardInterrupt
            saved.append(name)
        save(checkpoints, name, *others)

    if saved_before < 3:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint.Checkpoints, "save", killed)
            patch.setattr(checkpoint, "_replace", slowly)
            run(dataset, recipe, tmp_path / "runs", reporter)
        run(dataset, None, tmp_path / "runs", reporter, resumes=True)
    else:
        run(dataset, recipe, tmp_path / "runs", reporter)

    assert "phase head is the baseline, which is not trained again" in reporter.said
    head, kept = (checkpoint.read(folder.checkpoints, name) for name in ("baseline", "best"))
    assert head is not None and kept is not None
    assert all(torch.equal(head.weights[name], value) for name, value in kept.weights.items())
    epochs, before = folder.read_epochs(), head.progress.records
    assert {each.phase for each in epochs} == {"head"} and len(epochs) == len(before)
    assert [each.val.loss for each in epochs] == pytest.approx([each.val.loss for each in before], rel=1e-5)
    plan = folder.read_plan()
    assert plan is not None and [(gain.phase, gain.is_kept) for gain in plan.gains] == [
        ("head", True),
        ("baseline", False),
    ]


@pytest.mark.slow
def test_a_run_whose_phases_are_worse_keeps_its_baseline_also_when_resumed_or_repeated(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    worse: dict[str, Any] = {f"phases.{number}.epochs": 1 for number in (0, 1)}
    worse |= {"phases.0.solver": "optimizer", "phases.0.lr": 1e-9, "phases.1.lr": 1e-3, "phases.1.optional": False}
    settings = {"backbone": "starter", "weights": "published", "strategy": "top", "phase_settings": worse}
    recipe, dataset, reporter = RECIPE.with_settings(settings), Dataset.open(surfaces), Sentences()
    folder, kept = RunFolder(tmp_path / "runs" / "train-1"), list[dict[str, torch.Tensor]]()

    def stopped_once(trial: Trial, *others: Any) -> None:
        kept.append({key: value.clone() for key, value in trial.classifier.state_dict().items()})
        if len(kept) == 1:
            raise KeyboardInterrupt
        finish(trial, *others)

    monkeypatch.setattr("thaw.run.finish", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, recipe, tmp_path / "runs", reporter)
    run(dataset, recipe, tmp_path / "runs", reporter, resumes=True)

    plan, head = folder.read_plan(), checkpoint.read(folder.checkpoints, "baseline")
    assert plan is not None and [gain.phase for gain in plan.gains] == ["head", "fine-tune", "baseline"]
    assert plan.gains[-1].is_kept and plan.gains[-1].gain > 0.1
    assert sum(line.startswith("the baseline is kept, better than all that followed: ") for line in reporter.said) == 2
    assert any(line.startswith("kept: phase baseline, ") for line in reporter.said)
    assert "the baseline is kept" in folder.report.read_text()
    assert "| baseline | head |" in (folder.model / "MODEL_CARD.md").read_text()
    # The same command, with the measurements remembered, and the recipe of the baseline alone.
    run(dataset, recipe, tmp_path / "runs", NullReporter())
    run(dataset, Recipe.load(folder.baseline_recipe), tmp_path / "runs", NullReporter())
    # Trained on validation too, it is the baseline that is repeated.
    refit(folder, RunFolder(tmp_path / "refit"), NullReporter())
    assert {record.phase for record in RunFolder(tmp_path / "refit").read_epochs()} == {"baseline"}
    first, *repeated = kept
    assert head is not None and all(torch.equal(first[name], value) for name, value in head.weights.items())
    baseline = load(folder.baseline).state_dict()
    network = [name for name in baseline if name.startswith("backbone.") and not name.endswith("num_batches_tracked")]
    assert network and all(torch.equal(first[name], baseline[name]) for name in network)
    assert len(repeated) == 3
    assert all(torch.equal(value, other[name]) for other in repeated for name, value in first.items())


def test_a_short_run_has_none(surfaces: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"augment": AugmentSettings(preset="light")})
    run(Dataset.open(surfaces), recipe, tmp_path / "runs", NullReporter())
    assert not RunFolder(tmp_path / "runs" / "train-1").baseline.exists()


@pytest.mark.parametrize(("measuring", "expected"), [(2000.0, 1), (0.0, 0)])
def test_a_baseline_comes_first_only_where_what_is_left_takes_longer(
    measuring: float, expected: int, surfaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "BASELINE_FROM", 1000.0)
    selected, baselines = selecting.Selected({}, (), is_remembered=not measuring), list[PlannedTrial]()
    monkeypatch.setattr(selecting.Questions, "of_plain_views", lambda questions: selected)
    monkeypatch.setattr(selecting.Questions, "seconds_ahead", measuring)
    plan_trial(Dataset.open(surfaces), RECIPE, None, NullReporter(), baselines.append)
    assert len(baselines) == expected


def test_a_strategy_that_trains_too_long_is_replaced_after_a_baseline_on_all_stages(
    surfaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    monkeypatch.setattr(draft, "MAX_PHASE_SECONDS", 0.0)
    monkeypatch.setattr(draft, "choose_strategy", lambda *_: ("top", "small"))
    on_all = selecting.Selected({"head.features": "all"}, ())
    monkeypatch.setattr(selecting.Questions, "of_plain_views", lambda questions: on_all)
    baselines: list[PlannedTrial] = []
    recipe = RECIPE.with_settings({"strategy": "auto"})
    found = plan_trial(Dataset.open(surfaces), recipe, None, NullReporter(), baselines.append)
    assert [each.plan.recipe.head.features for each in baselines] == ["all"]
    (strategy,) = (choice for choice in found.plan.choices if choice.setting == "strategy")
    assert strategy.value == "head" and strategy.reason.startswith("small; top would train for ")
    assert [phase.cut for phase in found.plan.recipe.phases] == ["head"]


def test_a_second_run_asks_nothing_again_before_its_baseline(surfaces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    baselines: list[PlannedTrial] = []

    def plan() -> None:
        plan_trial(Dataset.open(surfaces), RECIPE, None, NullReporter(), baselines.append)

    plan()
    monkeypatch.setattr(selecting, "_ask_of_plain_views", interrupted)
    plan()
    assert len(baselines) == 2


def test_a_second_run_whose_head_is_fitted_at_once_has_no_baseline(
    surfaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the network is slow: what it has computed is remembered."""
    baselines: list[PlannedTrial] = []
    monkeypatch.setattr(measuring, "choose_engine", lambda *_: EngineChoice("pytorch-fp32", "slow", 5.0))
    for expected in (1, 1):
        plan_trial(Dataset.open(surfaces), RECIPE, None, NullReporter(), baselines.append)
        assert len(baselines) == expected
