"""Runs jobs in processes of their own, with time limits; whatever fails in one becomes a row.

The processes are forked, so PyTorch and Thaw are imported once; the parent must not have used the GPU. Jobs that run
at the same time share the cores. What a job prints goes to its log.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.gpu.setup import Setup
from bench.gpu.table import Row
from thaw.distributed.machine import use_own_cores

_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Job:
    """One part of the check: its name, what measures, and the seconds that it may take."""

    name: str
    measure: Callable[[Setup], Iterator[Row]]
    seconds: float

    @property
    def log(self) -> str:
        """The name of its log."""
        return f"{self.name.replace(': ', '-').replace(' ', '-')}.log"


@dataclass(frozen=True)
class _Running:
    """A job that runs, when it must have ended, and when it began, by `time.perf_counter`."""

    job: Job
    process: BaseProcess
    began: float
    ends: float

    def stop(self) -> None:
        """End the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()


def rows_of(jobs: Sequence[Job], setup: Setup, limit: float, logs: Path) -> Iterator[Row]:
    """The rows of jobs that run at the same time, as they come; each job has its own limit, and `limit` seconds."""
    running = dict(
        _start(job, setup, min(limit, job.seconds), logs, (index, len(jobs))) for index, job in enumerate(jobs)
    )
    try:
        while running:
            first = min(each.ends for each in running.values())
            for rows in wait(list(running), max(0.0, first - time.perf_counter())):
                assert isinstance(rows, Connection)
                try:
                    yield replace(rows.recv(), job=running[rows].job.name)
                except EOFError:
                    yield from _ended(running.pop(rows))
            for rows, each in list(running.items()):
                if time.perf_counter() >= each.ends:
                    running.pop(rows).stop()
                    after = f"stopped after {each.ends - each.began:.0f} s"
                    yield Row("time limit", after, "what is above was measured", each.job.name)
    finally:
        for each in running.values():
            each.stop()


def failure(measured: str, error: BaseException) -> Row:
    """The row of an error, with its first line; the log has all of it."""
    traceback.print_exception(error)
    sys.stderr.flush()
    message = str(error).strip().partition("\n")[0][:_LONGEST_MESSAGE]
    return Row(measured, "**FAILED**", f"{type(error).__name__}: {message}")


def _start(job: Job, setup: Setup, seconds: float, logs: Path, part: tuple[int, int]) -> tuple[Connection, _Running]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(job, setup, theirs, logs / job.log, part))
    began = time.perf_counter()
    process.start()
    theirs.close()
    return ours, _Running(job, process, began, began + seconds)


def _ended(each: _Running) -> Iterator[Row]:
    """What is said of a job whose process has ended."""
    each.process.join(10)
    if each.process.exitcode:
        yield Row("error", "**FAILED**", f"the process ended with {each.process.exitcode}", each.job.name)
    each.stop()
    print(f"{each.job.name}: {time.perf_counter() - each.began:.0f} s", file=sys.stderr, flush=True)


def _measure(job: Job, setup: Setup, rows: Connection, log: Path, part: tuple[int, int]) -> None:
    """What the process of a job does: its own group, log and cores, a row for each result or error."""
    os.setsid()
    # Processes with as many threads as there are cores wait for one another in every operation.
    use_own_cores(*part)
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        for row in job.measure(setup):
            rows.send(row)
    # `SystemExit` too: commands raise it.
    except BaseException as error:
        rows.send(failure("error", error))
    rows.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a stuck engine must not keep the process.
    os._exit(0)
