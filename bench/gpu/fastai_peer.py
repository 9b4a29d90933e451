"""fastai's `fine_tune` on the small data set, from the start of its process: one frozen epoch, then ten of everything.

Without the packages of fastai this is a row that says so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from bench.gpu.runs import environment
from bench.gpu.setup import Setup
from bench.gpu.table import Row, took

EPOCHS = 10


def measure(setup: Setup) -> Iterator[Row]:
    """A whole run, with a ResNet with random weights."""
    name = f"fastai fine_tune({EPOCHS}), {setup.sizes.peer}, {setup.sizes.few:,} images"
    if find_spec("fastai") is None:
        yield Row(name, "skipped", "fastai is not installed")
        return
    words = [sys.executable, "-m", "bench.gpu.fastai_peer", setup.few, setup.sizes.peer, setup.sizes.side]
    started = perf_counter()
    done = subprocess.run([*map(str, words), setup.device.type], env=environment(), check=False)
    seconds = perf_counter() - started
    yield took(name, seconds) if not done.returncode else Row(name, "**FAILED**", f"exit code {done.returncode}")


def main(images: Path, network: str, side: int, device: str) -> None:
    """What that process does; prints seconds and accuracy of each epoch."""
    from fastai.metrics import accuracy
    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, vision_learner
    from torchvision import models

    loaders = ImageDataLoaders.from_folder(
        images, valid_pct=0.15, seed=0, item_tfms=Resize(side), batch_tfms=aug_transforms(), bs=32, device=device
    )
    learner = vision_learner(loaders, getattr(models, network), pretrained=False, metrics=accuracy)
    if device == "cuda":
        learner = learner.to_bf16()
    with learner.no_bar():
        learner.fine_tune(EPOCHS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
