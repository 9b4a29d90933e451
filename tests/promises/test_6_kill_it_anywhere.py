import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import outcome
from thaw.data.dataset import Dataset
from thaw.errors import WriteError
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.training.history import PLATEAU_FACTOR

ROOT = Path(__file__).parents[2]
FULL_AT = (5, 14, 25, 40, 60)
"""The flushes to disk that fail, counted over all attempts: in the cache, in both phases and in the bundle."""


def kill_every(stride: int, images: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.promises.killed_runs", str(images), str(folder), str(stride)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(result: dict[str, Any]) -> None:
    kept = {"solved": True, "head": True, "top": False, "uninterrupted": False}
    uninterrupted = result["uninterrupted"]
    assert result["kills"] and uninterrupted["kept"] == kept and uninterrupted["leftovers"] == []
    plateau = [line.split(",") for line in uninterrupted["metrics"] if line.startswith("top,")]
    # The learning rate is lowered, and the phase stops before its sixth epoch.
    assert [float(row[3]) for row in plateau] == pytest.approx([1e-3] * 3 + [1e-3 * PLATEAU_FACTOR])
    for kill in result["kills"]:
        assert kill["exit_code"] == -signal.SIGKILL, kill
        assert kill["resumed"] == 0, kill
        for key in ("weights", "weights_of_last_phase", "metrics", "kept", "runs"):
            assert kill[key] == uninterrupted[key], (kill["moment"], kill["kind"], key)
        assert kill["was_finished"] or kill["leftovers"] == [], (kill["moment"], kill["kind"])


ONE_OF_EACH_KIND = 200


@pytest.mark.parametrize("stride", [ONE_OF_EACH_KIND, pytest.param(13, marks=[pytest.mark.slow, pytest.mark.ci])])
def test_a_run_killed_in_any_phase_or_while_writing_a_file_resumes_to_bit_identical_weights(
    stride: int, images: Path, tmp_path: Path
) -> None:
    result = kill_every(stride, images, tmp_path)
    check(result)
    assert {kill["kind"] for kill in result["kills"]} == {"flush", "replace", "step"}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_bit_identical_weights(images: Path, tmp_path: Path) -> None:
    check(kill_every(1, images, tmp_path))


@pytest.mark.slow
@pytest.mark.ci
def test_a_run_that_met_a_full_disk_says_so_and_resumes_to_the_weights_of_one_that_did_not(
    trained: RunFolder, images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, flush, run = Dataset.open(images), os.fsync, RunFolder(tmp_path / "train-1")
    flushes, sentences = 0, []

    def nearly_full(handle: int) -> None:
        nonlocal flushes
        flushes += 1
        if flushes in FULL_AT:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", nearly_full)
    for _ in range(len(FULL_AT) + 1):
        try:
            finetune(data, quick, tmp_path, resume=run.path.exists(), reporter=NullReporter())
            break
        except WriteError as error:
            sentences.append(str(error))
    assert len(sentences) == len(FULL_AT) and all("cannot be written: the disk is full" in said for said in sentences)
    assert any(said.endswith(", then re-run with --resume") for said in sentences)
    assert outcome(run) == outcome(trained)
    assert not list(tmp_path.rglob(".*.tmp"))
