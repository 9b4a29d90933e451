"""Measure, on this machine and this data, what the plan needs to know."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from thaw.classifier.classifier import Classifier
from thaw.data.prepare import Prepared
from thaw.device import choose_device
from thaw.features.extract import stored_bytes
from thaw.features.pooled import PROBE_IMAGES, plain_sample
from thaw.features.probe import TOLERANCE, WORTHWHILE, choose_engine, distance_between
from thaw.features.torch_runner import Precision
from thaw.planning.costs import StepTimings, training_rate
from thaw.planning.measurements import Measurements, ViewSizes
from thaw.planning.storing import wanted_views
from thaw.recipe import Recipe
from thaw.training.arithmetic import training_arithmetic
from thaw.training.loss import imbalance

THAWED_IMAGES = 8


def measure_run(recipe: Recipe, prepared: Prepared, classifier: Classifier, cache: Path) -> Measurements:
    """Probe engines and training steps on real images, and count what is stored; a few seconds."""
    backbone, manifest = classifier.backbone, prepared.manifest
    device = choose_device(recipe.device)
    classifier.to(device.device)
    train = manifest.indices("train")
    plain = len(manifest.indices("val")) + len(manifest.indices("test"))
    pixels = plain_sample(prepared.pixels, train, PROBE_IMAGES)
    positions = tuple(backbone.cut(phase.cut).position for phase in recipe.phases)
    at = _features_at(classifier, positions, pixels[:THAWED_IMAGES])
    looking = [index for index, position in enumerate(positions) if position > 0]
    images = wanted_views(recipe, looking, len(train))[0] * len(train) + plain
    cache.mkdir(parents=True, exist_ok=True)
    shapes = [tuple(at[position].shape[1:]) for position in positions]
    return Measurements(
        task=manifest.task,
        train_images=len(train),
        plain_images=plain,
        val_images=len(manifest.indices("val")),
        imbalance=imbalance(manifest.targets()[train], len(manifest.classes)),
        facts=backbone.facts,
        device=device,
        engine=choose_engine(backbone, device.device, recipe.engine, positions, pixels, images, cache),
        thawed=_time_steps(recipe, classifier, positions, at),
        positions=positions,
        sizes=tuple(ViewSizes(stored_bytes(shape, "float16"), stored_bytes(shape, "uint8")) for shape in shapes),
        free_bytes=shutil.disk_usage(cache).free,
    )


def _features_at(classifier: Classifier, positions: tuple[int, ...], pixels: Tensor) -> dict[int, Tensor]:
    """What lies at each cut for some images, in fp32."""
    value, start, at = classifier.normalise(pixels.to(classifier.device)), 0, {}
    with torch.no_grad():
        for position in sorted({*positions, classifier.backbone.head_position}):
            value, start = classifier.backbone.run(value, start, position), position
            at[position] = value
    return at


def _time_steps(
    recipe: Recipe, classifier: Classifier, positions: tuple[int, ...], at: dict[int, Tensor]
) -> StepTimings:
    """Time training steps in fp32 and bf16 and compare what they make of the same features at the first thawed cut.

    Phases that thaw further do not decide: they may be left out, and validation judges what they bring.
    """
    top = classifier.backbone.head_position
    cut = next((position for position in positions if position < top), top)

    def rates(precision: Precision) -> tuple[float, ...]:
        return tuple(
            training_rate(classifier, phase, precision, at[position])
            for phase, position in zip(recipe.phases, positions, strict=True)
        )

    if recipe.precision != "auto":
        return StepTimings(recipe.precision, "as asked", rates(recipe.precision))
    exact = rates("fp32")
    if cut == top:
        return StepTimings("fp32", "only the head trains, which any format does in no time", exact)
    with torch.no_grad(), training_arithmetic(classifier.device, "bf16"):
        rounded = classifier.backbone.run(at[cut], cut, top)
    distance = distance_between(rounded.float(), at[top])
    quick = rates("bf16")
    gain = quick[positions.index(cut)] / exact[positions.index(cut)]
    figures = f"bf16 trains the thawed part at {gain:.2f}x the speed of fp32 and differs by {distance:.1%}"
    if gain >= WORTHWHILE and distance <= TOLERANCE:
        return StepTimings("bf16", f"{figures} (at most {TOLERANCE:.0%})", quick)
    return StepTimings("fp32", f"{figures}; wanted {WORTHWHILE}x and at most {TOLERANCE:.0%}", exact)
