import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.gpu import correctness
from bench.gpu.jobs import Job, rows_of
from bench.gpu.setup import TINY, Setup, Sizes
from bench.gpu.table import Row, Table, agreement
from thaw.recipe import Phase
from thaw.training.optimizer import Trainable, make_optimizer

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="its jobs are forked"),
    # From Python 3.12 on, because libraries have threads; the jobs of these tests use none of them.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


def rows(folder: Path, *jobs: Job, limit: float = 30.0) -> list[tuple[str, str, str]]:
    setup = Setup(TINY, torch.device("cpu"), folder)
    return [(row.job, row.measured, row.result) for row in rows_of(jobs, setup, limit, folder)]


def works(setup: Setup) -> Iterator[Row]:
    os.write(1, b"said\n")
    yield Row("answer", "42")


def raises(setup: Setup) -> Iterator[Row]:
    yield Row("first", "1")
    raise SystemExit(2)


def dies(setup: Setup) -> Iterator[Row]:
    os._exit(3)
    yield


def hangs(setup: Setup) -> Iterator[Row]:
    yield Row("first", "1")
    subprocess.run(["sleep", "60"], check=False)


def test_jobs_give_rows_whatever_happens_to_others_beside_them(tmp_path: Path) -> None:
    jobs = (Job("good", works, 30), Job("bad", raises, 30), Job("dead", dies, 30))
    assert sorted(rows(tmp_path, *jobs)) == [
        ("bad", "error", "**FAILED**"),
        ("bad", "first", "1"),
        ("dead", "error", "**FAILED**"),
        ("good", "answer", "42"),
    ]
    assert (tmp_path / "good.log").read_text() == "said\n"


@pytest.mark.parametrize(("seconds", "limit"), [(0.5, 30.0), (30.0, 0.5)])
def test_a_job_that_takes_too_long_is_stopped_with_what_it_started(
    seconds: float, limit: float, tmp_path: Path
) -> None:
    started = time.perf_counter()
    assert rows(tmp_path, Job("slow", hangs, seconds), limit=limit) == [
        ("slow", "first", "1"),
        ("slow", "time limit", "stopped after 0 s"),
    ]
    assert time.perf_counter() - started < 10


def test_a_row_stays_one_row_of_the_table(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.md")
    table.add(Row("a | b", "1\n2"))
    assert (tmp_path / "table.md").read_text().splitlines()[-1] == "|  | a \\| b | 1 2 |  |"


def test_an_undefined_difference_is_no_agreement() -> None:
    assert agreement("losses", float("nan"), 1.0).note.startswith("**NOT")
    assert agreement("losses", 0.5, 1.0).note == "within 1"


@pytest.mark.parametrize("cut", ["stages:3", pytest.param("pixels", marks=pytest.mark.slow)])
def test_losses_differ_by_more_than_the_tolerance_where_only_the_head_learns(
    cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, cpu = Setup(Sizes(), torch.device("cpu"), tmp_path), torch.device("cpu")
    losses = correctness._train(setup, cpu, cut, "eager")

    def of_the_head(parameters: list[Trainable], phase: Phase) -> torch.optim.Optimizer:
        return make_optimizer([each for each in parameters if each[0].startswith("head.")], phase)

    monkeypatch.setattr("thaw.training.epoch.make_optimizer", of_the_head)
    others = correctness._train(setup, cpu, cut, "eager")
    assert np.abs(others / losses - 1).max() > 3 * correctness.LOSS_TOLERANCE


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    words = [sys.executable, "-m", "bench.gpu", "--tiny", "--out", str(table), "--logs", str(tmp_path / "logs")]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert not done.returncode, table.read_text()
    found = {line.split("|")[1].strip() for line in table.read_text().splitlines()[2:]}
    logs = {log.stem for log in (tmp_path / "logs").iterdir()}
    # The table and the logs name the same jobs; `whole runs` has no network here.
    assert {name.replace(": ", "-").replace(" ", "-") for name in found} == logs - {"whole-runs"}
