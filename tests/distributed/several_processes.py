"""Runs of `thaw train` in several processes, and what must be the same in two of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.runs import outcome
from thaw.recipe import Phase, Recipe
from thaw.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


def recipe_of(quick: Recipe, **changes: object) -> Recipe:
    """A recipe without dropout, which differs between processes, of batches that do not divide evenly."""
    phases = tuple(
        Phase(name=name, cut=cut, epochs=4, lr=lr, batch_size=7, solver="optimizer")
        for name, cut, lr in (("head", "head", 1e-2), ("fine-tune", "stages:2", 1e-3))
    )
    head = quick.head.model_copy(update={"dropout": 0.0, "features": "last"})
    return quick.model_copy(
        update={"phases": phases, "head": head, "class_weights": "balanced", "threads": 1, **changes}
    )


def random_recipe_of(quick: Recipe) -> Recipe:
    """A recipe with dropout and mixup, so that what differs between processes must be the same again in each."""
    phases = tuple(
        Phase(name=name, cut=cut, epochs=6, lr=1e-3, batch_size=8, solver="optimizer", mixup=0.2, patience=100)
        for name, cut in (("head", "head"), ("fine-tune", "stages:2"))
    )
    return recipe_of(quick, phases=phases, head=quick.head)


def command(images: Path, recipe: Recipe, place: Path, *more: str) -> list[str]:
    """Trains in two processes unless `more` says otherwise; runs are in `place/runs`."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    words = ["train", images, "--recipe", place / "recipe.yaml", "--runs", place / "runs", "--processes", "2", *more]
    return [sys.executable, "-m", "thaw", *map(str, words)]


def environment(place: Path) -> dict[str, str]:
    """With a cache of its own."""
    return {**os.environ, "THAW_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}


def run(images: Path, recipe: Recipe, place: Path, extra: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end."""
    return subprocess.run(
        command(images, recipe, place, *extra),
        cwd=ROOT,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def first_run(place: Path) -> RunFolder:
    """The first run of `command`."""
    return RunFolder.numbered(place / "runs", 1)


def wait_for_an_epoch(place: Path, process: subprocess.Popen[str]) -> None:
    """Until the first run has an epoch, or its process has ended."""
    until = time.monotonic() + 200
    while not first_run(place).metrics.exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)


def assert_same_features(*places: Path) -> None:
    """All have extracted features, the same bytes."""
    first, *others = [_files(place / "cache" / "features") for place in places]
    assert first and all(other == first for other in others)


def assert_same_run(place: Path, expected: Path) -> None:
    """The only run of a place ended with the weights and the epochs of the expected one."""
    assert [folder.name for folder in (place / "runs").iterdir()] == ["train-1"]
    assert outcome(first_run(place)) == outcome(first_run(expected))


def _files(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "seal.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
