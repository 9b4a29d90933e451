"""Whole runs of `thaw train` on the small data set, from the start of its process to its bundle and page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from bench.gpu.setup import Setup
from bench.gpu.table import Row, took
from thaw.run_folder import RunFolder


def two_phases(setup: Setup) -> Iterator[Row]:
    """The head, then the top stages."""
    for number, (name, weights) in enumerate(setup.sizes.two_phases):
        options = ["--backbone", name, "--weights", weights, "--strategy", "top"]
        yield _run(setup, f"two phases, {name}", options)
        if not number:
            # The first process also reads the programs from the disk and compiles them for Python.
            yield _run(setup, f"two phases, {name}, once more", options)


def networks(setup: Setup) -> Iterator[Row]:
    """The head, then the whole network, for some epochs."""
    for name in setup.sizes.networks:
        options = ["--backbone", name, "--weights", "random", "--strategy", "whole"]
        yield _run(setup, f"whole {name}", [*options, "--set", f"phases.1.epochs={setup.sizes.epochs}"])


def command(*words: str | Path) -> list[str]:
    """A command line that runs `thaw` in a process of its own."""
    return [sys.executable, "-c", "from thaw.cli import main; main()", *map(str, words)]


def environment() -> dict[str, str]:
    """The environment of such a process: everything is found where it is here, the cache is ours."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _run(setup: Setup, name: str, options: list[str]) -> Row:
    sizes, runs = setup.sizes, setup.new_folder(name.replace(" ", "-").replace(",", ""))
    size = ["--image-size", str(sizes.side), "--device", setup.device.type]
    # Without a GPU this is a rehearsal: one epoch of each phase.
    short = ["--set", "phases.1.epochs=1"] if setup.device.type == "cpu" else []
    words = command("train", setup.few, "--runs", runs, *size, *options, *short)
    started = perf_counter()
    # Its output goes to the log of this job.
    done = subprocess.run(words, env={**environment(), "THAW_CACHE": str(runs / "cache")}, check=False)
    seconds = perf_counter() - started
    run = RunFolder(runs / "train-1")
    if done.returncode or not run.report.is_file() or not run.model.is_dir():
        return Row(name, "**FAILED**", f"exit code {done.returncode} after {seconds:.0f} s")
    return took(f"{name}, {sizes.few:,} images, to bundle and page", seconds, _parts(run, seconds))


def _parts(run: RunFolder, seconds: float) -> str:
    """Where the time went, and how well it went."""
    plan = json.loads(run.plan.read_bytes())
    actual, records = plan["actual"], run.read_epochs()
    parts = [f"extraction {actual['extraction']:.1f} s"]
    for _, phase, taken in actual["phases"]:
        epochs = [record.seconds for record in records if record.phase == phase]
        parts.append(f"{phase} {taken:.1f} s ({len(epochs)} epochs of {sorted(epochs)[len(epochs) // 2]:.2f} s)")
    known = actual["extraction"] + sum(taken for _, _, taken in actual["phases"])
    parts.append(f"before and after {actual['seconds'] - known:.1f} s")
    parts.append(f"start and page {seconds - actual['seconds']:.1f} s")
    test = run.read_evaluation().evaluations["test"].overall["accuracy"]
    parts.append(f"test accuracy {test.value:.3f}" if test else "no test accuracy")
    chosen = {choice["setting"]: choice["value"] for choice in plan["choices"]}
    return "; ".join([*parts, f"{chosen['engine']}, trained in {chosen['precision']}"])
