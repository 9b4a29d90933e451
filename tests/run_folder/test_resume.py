"""A run resumes only from files that are all there, unchanged, and of that run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thaw.bundle import read_bundle
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.device import threads_restored
from thaw.errors import DataError, ResumeError, ThawError
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run import check_same_weights
from thaw.run_folder import PlanFile, RunFolder
from thaw.run_folder.lock import LOCK, held
from thaw.run_folder.resume import check_files, machine_differences
from thaw.training import checkpoint
from thaw.trial import TrialContext, resume


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of a run that was interrupted before its end."""
    shutil.copytree(trained.path, tmp_path / "runs" / "train-1")
    folder = RunFolder(tmp_path / "runs" / "train-1")
    folder.evaluation.unlink()
    return folder


def edit_recipe(run: RunFolder) -> None:
    run.recipe.write_text(run.recipe.read_text().replace("lr: 0.001", "lr: 0.002"))


def relabel(run: RunFolder) -> None:
    manifest = Manifest.read(run.manifest)
    manifest.with_columns({"labels": [["ok"]] * len(manifest)}).write(run.manifest)


def lose_all_checkpoints(run: RunFolder) -> None:
    shutil.rmtree(run.checkpoints)


def checkpoints_become_a_file(run: RunFolder) -> None:
    shutil.rmtree(run.checkpoints)
    run.checkpoints.write_text("")


def take_the_last_checkpoint_of_another_run(run: RunFolder) -> None:
    saved = checkpoint.read(run.checkpoints, "last")
    assert saved is not None
    other = checkpoint.Checkpoint(saved.weights, saved.progress, saved.optimizer, "another run")
    checkpoint.write(run.checkpoints, "last", other)


def empty_the_last_checkpoint(run: RunFolder) -> None:
    """As a power cut leaves a file that was never flushed."""
    (file,) = run.checkpoints.glob("last-*.safetensors")
    file.write_bytes(b"")


def lose(name: str) -> Callable[[RunFolder], None]:
    return lambda run: (run.path / name).unlink()


def write(name: str, text: str) -> Callable[[RunFolder], None]:
    def damage(run: RunFolder) -> None:
        assert (run.path / name).is_file()
        (run.path / name).write_text(text)

    return damage


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lose("checkpoints/last.json"), "last.json: is missing, though best.json is there"),
        (lose("checkpoints/best.json"), "best.json: is missing after 4 epochs"),
        (lose_all_checkpoints, "last.json: is missing, though metrics.csv has epochs"),
        (checkpoints_become_a_file, "checkpoints: is a file"),
        (write("checkpoints/last.json", "[]"), "last.json: the checkpoint cannot be read"),
        (write("checkpoints/last.json", ""), "last.json: the checkpoint cannot be read"),
        (empty_the_last_checkpoint, "last.json: the checkpoint cannot be read"),
        (write("checkpoints/best.json", '{"file": 1, "sha256": 2}'), "best.json: the checkpoint cannot be read"),
        (take_the_last_checkpoint_of_another_run, "the checkpoint is not of this run"),
        (edit_recipe, "recipe.yaml: was changed since this run began"),
        (lose("recipe.yaml"), "recipe.yaml: cannot be read"),
        (relabel, "manifest.parquet: was changed since this run began"),
        (lose("manifest.parquet"), "manifest.parquet: cannot be read"),
        (lose("plan.json"), "plan.json: is missing, though training has begun"),
        (write("plan.json", ""), "plan.json: is not what a run writes"),
        (write("plan.json", "[]"), "plan.json: is not what a run writes"),
        (write("plan.json", "{}"), "plan.json: is not what a run writes (no 'requested')"),
        (write("metrics.csv", "epoch,loss\n1,0.5\n"), "metrics.csv: is not what a run writes"),
    ],
)
def test_a_file_that_is_lost_damaged_changed_or_of_another_run_is_named_and_nothing_is_written(
    damage: Callable[[RunFolder], None], sentence: str, run: RunFolder, images: Path
) -> None:
    damage(run)
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    with pytest.raises(ThawError) as refused:
        resume(Dataset.open(images), None, TrialContext(run.path.parent, NullReporter()))
    message = str(refused.value)
    assert sentence in message and message.startswith(str(run.path)) and "\n" not in message
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_the_files_of_a_run_agree_as_it_left_them(run: RunFolder) -> None:
    plan = run.read_plan()
    assert plan is not None and set(plan.files) == {"recipe.yaml", "manifest.parquet"} and plan.machine
    progress = check_files(run, plan)
    assert progress is not None and len(progress.records) == 4


def test_gains_that_were_measured_on_one_or_two_splits_are_read_from_the_plan(trained: RunFolder) -> None:
    plan = trained.read_plan()
    assert plan is not None and plan.gains
    values = plan.to_json()
    values["gains"] = [{**gain, "splits": 2} for gain in values["gains"]]
    assert PlanFile.from_json(values).gains == plan.gains


def test_the_best_checkpoint_of_another_training_is_refused(run: RunFolder) -> None:
    last = checkpoint.read(run.checkpoints, "last")
    assert last is not None
    first, *others = last.progress.records
    slower = checkpoint.Progress(0, 1, None, (first.from_json({**first.to_json(), "seconds": 99.0}), *others))
    checkpoint.write(run.checkpoints, "best", checkpoint.Checkpoint(last.weights, slower, {}, last.run))
    with pytest.raises(ResumeError, match="of two runs"):
        checkpoint.check(run.checkpoints, last.run)


def test_a_run_that_another_process_trains_is_not_resumed(run: RunFolder, images: Path) -> None:
    with held(run.path):
        before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
        with pytest.raises(ResumeError, match="train-1: another process is training this run"):
            finetune(Dataset.open(images), None, run.path.parent, resume=True, reporter=NullReporter())
        assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before
    assert not (run.path / LOCK).exists()
    with held(run.path), pytest.raises(ResumeError), held(run.path):
        pass
    # What a killed process leaves is no lock any more.
    (run.path / LOCK).touch()
    with held(run.path):
        pass


def test_what_a_run_that_was_killed_while_it_planned_left_half_written_is_removed_when_it_resumes(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    half_written = tmp_path / "train-1" / ".plan.json.0123456789abcdef.tmp"
    half_written.parent.mkdir()
    half_written.touch()
    trial = resume(Dataset.open(images), quick, TrialContext(tmp_path, NullReporter()))
    assert trial.folder.path == half_written.parent and not half_written.exists()


def test_a_bundle_of_other_weights_is_refused(trained: RunFolder) -> None:
    classifier = read_bundle(trained.model)
    check_same_weights(classifier, trained.model)
    next(classifier.head.parameters()).data[0, 0] += 1e-6
    with pytest.raises(ResumeError, match=r"model: is not the classifier of this run"):
        check_same_weights(classifier, trained.model)


def test_a_resumed_run_computes_with_the_threads_it_began_with(run: RunFolder, images: Path) -> None:
    began = run.read_recipe().threads
    assert began is not None
    said: list[str] = []
    reporter = NullReporter()
    reporter.say = said.append  # type: ignore[method-assign]
    with threads_restored():
        torch.set_num_threads(began + 1)
        resume(Dataset.open(images), None, TrialContext(run.path.parent, reporter))
        assert torch.get_num_threads() == began
    assert any(line.startswith(f"computing with {began} thread") for line in said)
    assert not any("another machine" in line for line in said)


def test_another_machine_is_named() -> None:
    began, now = (
        {"machine": "A, 8 cores", "versions": "PyTorch 2.13"},
        {"machine": "A, 8 cores", "versions": "PyTorch 2.14"},
    )
    assert machine_differences(began, now) == ["PyTorch 2.13 -> PyTorch 2.14"]
    assert machine_differences({}, now) == machine_differences(now, now) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from(["requested", "choices", "predicted", "files", "actual", "machine", "val", "x"]),
            values,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_whatever_json_stands_in_a_file_of_a_run_is_one_sentence(tmp_path: Path, content: object) -> None:
    run = RunFolder(tmp_path)
    for file, read in ((run.plan, run.read_plan), (run.evaluation, run.read_evaluation)):
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=rf"{file.name}: is not what a run writes"):
            read()
