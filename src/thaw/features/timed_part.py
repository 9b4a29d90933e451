"""A network in its fastest engine, and how long it takes for one image."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.device import choose_device
from thaw.features.engines import FrozenPart
from thaw.features.probe import ExtractionJob, choose_engine, run_seconds
from thaw.recipe import Recipe

_ROUNDS = 5


@dataclass(frozen=True)
class TimedPart:
    """A network with its engine, and the median time in milliseconds that it takes for one image."""

    frozen: FrozenPart
    latency_ms: float


def timed_part(backbone: Backbone, recipe: Recipe, pixels: Tensor, images: int, cache: Path) -> TimedPart:
    """All of a network below the head, with the features of every stage where it has any, in the fastest engine.

    Args:
        backbone: The network; it moves to the device of the recipe.
        recipe: Its device, and its engine or `auto`.
        pixels: Sample images of the run, (N, S, S, 3) uint8.
        images: Number of images, or views, whose features will be extracted.
        cache: Folder in which the choice of the engine is remembered.
    """
    device, head = choose_device(recipe.device).device, [backbone.head_position]
    backbone.to(device)
    backbone.use_features(backbone.widest_features)
    job = ExtractionJob(backbone, device, head, pixels, images)
    frozen = FrozenPart(backbone, device, choose_engine(job, recipe.engine, cache).engine)
    runner = frozen.runner(head)
    # The first run takes longer than later ones.
    runner.run(pixels[:1])
    seconds = statistics.median(run_seconds(runner, pixels[:1], device) for _ in range(_ROUNDS))
    return TimedPart(frozen, 1000 * seconds)
