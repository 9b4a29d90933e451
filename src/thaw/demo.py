"""`thaw demo`: synthetic images of steel surfaces with defects, and a classifier trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thaw import atomic
from thaw.backbones import starter
from thaw.data.surfaces import write_surfaces
from thaw.formats import command, percent
from thaw.marker import mark_if_new
from thaw.pipeline import finetune
from thaw.progress import Reporter
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, AugmentSettings, Recipe
from thaw.run_folder import RunFolder
from thaw.terminal.console import ConsoleReporter
from thaw.writing import check_writable

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
    """How well one initialization did: best validation accuracy of each phase, test accuracy of the best, the run."""

    name: str
    phases: tuple[float, ...]
    test: float
    run: Path


def run_demo(folder: Path, random_start: bool = False, reporter: Reporter | None = None) -> tuple[Start, ...]:
    """Write images to `folder/images` (once) and train on them, with the run under `folder/runs`.

    With `random_start` the same network is also trained from random weights, to show the gain from pre-training.
    """
    shown, images = reporter or ConsoleReporter(), folder / "images"
    if not images.exists():
        check_writable(folder)
        mark_if_new(folder)
        with atomic.new_folder(images) as building:
            write_surfaces(building, images_per_class=IMAGES_PER_CLASS)
        shown.say(f"wrote synthetic images of steel surfaces with defects: {images}")
    starts = [_train(images, "pre-trained", RECIPE, folder / "runs", shown)]
    if random_start:
        shown.say("\nthe same network from random weights")
        recipe = RECIPE.model_copy(update={"weights": "random"})
        starts.append(_train(images, "random weights", recipe, folder / "runs-from-random", shown))
    rows = [(start.name, *(percent(value) for value in (*start.phases, start.test))) for start in starts]
    header = ("start", *(f"validation, phase {phase.name}" for phase in RECIPE.phases), "test, kept epoch")
    shown.table("Accuracy", header, rows)
    inspects = command("thaw", "inspect", images)
    predicts = command("thaw", "predict", starts[0].run, images / "scratch")
    shown.say(f"next: {inspects}, {predicts}, or thaw train YOUR-IMAGES/")
    return tuple(starts)


def _train(images: Path, name: str, recipe: Recipe, runs: Path, reporter: Reporter) -> Start:
    finetune(images, recipe, runs, reporter=reporter)
    run = RunFolder.earlier(runs)[0]
    test = run.read_evaluation().evaluations["test"].overall["accuracy"]
    epochs = run.read_epochs()
    best = (max(record.val["accuracy"] for record in epochs if record.phase == phase.name) for phase in recipe.phases)
    assert test is not None
    return Start(name, tuple(best), test.value, run.path)
