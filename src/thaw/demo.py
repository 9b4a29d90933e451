"""`thaw demo`: a small set of steel surfaces with defects, made on the spot, and a classifier trained on it."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from thaw.backbones import starter
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.pipeline import finetune
from thaw.progress import Reporter
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, AugmentSettings, Phase, Recipe
from thaw.run_folder import RunFolder
from thaw.terminal.console import ConsoleReporter

IMAGES_PER_CLASS = 60

RECIPE = Recipe(
    backbone=starter.NAME,
    augment=AugmentSettings(preset="light"),
    views=4,
    phases=(HEAD_PHASE, FINE_TUNE_PHASE.model_copy(update={"epochs": 10})),
)
"""The published recipe, shortened to a minute."""


@dataclass(frozen=True)
class Start:
    """How well one start did: the best validation accuracy of each phase, and the test accuracy of what was kept."""

    name: str
    phases: tuple[float, ...]
    test: float


def run_demo(folder: Path, random_start: bool = False, reporter: Reporter | None = None) -> tuple[Start, ...]:
    """Write images to `folder/images` (once) and train on them, leaving the run under `folder/runs`.

    With `random_start` the same network is trained from random weights too, to see what pre-training is worth.
    """
    reporter = reporter or ConsoleReporter()
    images = folder / "images"
    if not images.exists():
        write_surfaces(images, images_per_class=IMAGES_PER_CLASS)
        reporter.say(f"made a set of steel surfaces with defects: {images}")
    starts = [_train(images, "starter", RECIPE, folder / "runs", reporter)]
    if random_start:
        reporter.say("\nthe same again from random weights")
        recipe = RECIPE.model_copy(update={"weights": "random"})
        starts.append(_train(images, "random weights", recipe, folder / "runs-from-random", reporter))
    rows = [(start.name, *(f"{value:.1%}" for value in (*start.phases, start.test))) for start in starts]
    header = ("start", *(f"validation, phase {phase.name}" for phase in RECIPE.phases), "test, best of both")
    reporter.table("What each phase was worth", header, rows)
    reporter.say(
        f"next: thaw inspect {images}, thaw predict {folder}/runs/train-1 {images}/scratch, or thaw train YOUR-IMAGES/"
    )
    return tuple(starts)


def _train(images: Path, name: str, recipe: Recipe, runs: Path, reporter: Reporter) -> Start:
    finetune(Dataset.open(images), recipe, runs, reporter=reporter)
    run = RunFolder.earlier(runs)[0]
    evaluation = json.loads(run.evaluation.read_text(encoding="utf-8"))
    return Start(
        name,
        tuple(_best_of(run, phase) for phase in recipe.phases),
        float(evaluation["test"]["overall"]["accuracy"]["value"]),
    )


def _best_of(run: RunFolder, phase: Phase) -> float:
    rows = csv.DictReader(run.metrics.read_text(encoding="utf-8").splitlines())
    return max(float(row["val_accuracy"]) for row in rows if row["phase"] == phase.name)
