"""`thaw demo`: a small set of steel surfaces with defects, made on the spot, and a classifier trained on it."""

from __future__ import annotations

from pathlib import Path

from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.pipeline import finetune
from thaw.progress import Terminal, Watcher
from thaw.recipe import AugmentSettings, HeadSettings, Phase, PreprocessingSettings, Recipe

IMAGES_PER_CLASS = 60

RECIPE = Recipe(
    backbone="resnet10t",
    weights="random",
    preprocessing=PreprocessingSettings(image_size=96),
    augment=AugmentSettings(preset="light"),
    head=HeadSettings(pooling="max"),
    phases=(
        Phase(
            name="whole",
            cut="pixels",
            epochs=18,
            lr=2e-3,
            warmup_epochs=2,
            batch_size=16,
            batchnorm="train",
            patience=None,
        ),
    ),
)


def run_demo(folder: Path, watch: Watcher | None = None) -> None:
    """Write images to `folder/images` (once) and train on them, leaving the run under `folder/runs`."""
    watch = watch or Terminal()
    images = folder / "images"
    if not images.exists():
        write_surfaces(images, images_per_class=IMAGES_PER_CLASS)
        watch.say(f"made a set of steel surfaces with defects: {images}")
    watch.say("no pre-trained weights are bundled: this demo trains from random weights, real runs start far ahead")
    finetune(Dataset.open(images), RECIPE, folder / "runs", watch=watch)
    watch.say(f"next: thaw predict {folder}/runs/train-1 {images}/scratch, or thaw train YOUR-IMAGES/")
