"""Whole runs in two processes, which torchrun's machinery starts."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.distributed.several_processes import (
    ROOT,
    assert_same_features,
    assert_same_run,
    command,
    environment,
    first_run,
    random_recipe_of,
    recipe_of,
    run,
    wait_for_an_epoch,
)
from thaw.bundle import read_bundle
from thaw.data.dataset import Dataset
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Phase, Recipe
from thaw.run_folder import RunFolder
from thaw.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="kills processes by signals")]


def losses(run: RunFolder) -> list[tuple[float, float]]:
    saved = checkpoint.read(run.checkpoints, "last")
    assert saved
    return [(record.train_loss, record.val.loss) for record in saved.progress.records]


@pytest.mark.ci
def test_two_processes_extract_the_bytes_of_one_and_train_along_its_loss_curve(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(quick)
    done = run(images, recipe, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Phases") == 1 and "tcp" not in done.stderr
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "one" / "cache"))
    finetune(Dataset.open(images), recipe, tmp_path / "one" / "runs", reporter=NullReporter())
    assert_same_features(tmp_path / "one", tmp_path / "two")
    one, two = (first_run(tmp_path / name) for name in ("one", "two"))
    differences = [
        abs(first - second) / first
        for pair in zip(losses(one), losses(two), strict=True)
        for first, second in zip(*pair, strict=True)
    ]
    print(f"largest relative difference of {len(differences)} losses: {max(differences):.1e}")
    assert len(differences) == 16 and max(differences) < 1e-4
    weights = [read_bundle(each.model).state_dict() for each in (one, two)]
    assert all(torch.allclose(value, weights[1][name], atol=1e-3) for name, value in weights[0].items())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_which_a_process_is_killed_is_restarted_and_ends_with_the_same_weights(
    images: Path, quick: Recipe, tmp_path: Path, rank: int
) -> None:
    recipe = random_recipe_of(quick)
    undisturbed = run(images, recipe, tmp_path / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    place = tmp_path / "killed"
    words = command(images, recipe, place)
    with subprocess.Popen(words, cwd=ROOT, env=environment(place), stdout=-1, stderr=-1, text=True) as process:
        wait_for_an_epoch(place, process)
        os.kill(child(process.pid, rank), signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert len(re.findall("resuming", out)) == 1
    assert_same_run(place, tmp_path / "undisturbed")


def child(parent: int, rank: int) -> int:
    """The process of a rank."""
    (tasks,) = Path(f"/proc/{parent}/task/{parent}").glob("children")
    for each in tasks.read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{each}/environ").read_bytes().split(b"\0"):
            return int(each)
    raise AssertionError(f"no process of rank {rank}")


def test_an_error_of_the_user_is_said_once_and_is_not_tried_again(images: Path, quick: Recipe, tmp_path: Path) -> None:
    recipe = recipe_of(quick, phases=(Phase(name="head", cut="nowhere", epochs=1, lr=1e-2),))
    done = run(images, recipe, tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("thaw: ") and "nowhere" in line
    assert not list((tmp_path / "runs").glob("*"))


def test_torchrun_gives_the_sentence_of_an_error_as_the_cause_also_after_a_restart(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    done = subprocess.run(
        [*torchrun, "-m", "thaw", "train", str(tmp_path / "nowhere")],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    # torchrun has no other exit code for processes that fail.
    assert done.returncode == 1
    sentence = f"thaw: {tmp_path / 'nowhere'}: no such folder"
    assert [line for line in done.stderr.splitlines() if line.startswith("thaw: ")] == [sentence]
    assert f"traceback : {sentence}" in done.stderr.partition("Root Cause")[2]
