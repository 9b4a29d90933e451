"""Measure what the plan needs to know, on this machine and on the run's own images."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.cache import cache_entries
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.classifier.head import Head
from thaw.data.groups import origin_of_groups
from thaw.data.prepare import Prepared
from thaw.device import choose_device, free_bytes
from thaw.distributed import launched_processes
from thaw.features.cache import bytes_of_view
from thaw.features.device_views import bytes_on_device
from thaw.features.pooled import PROBE_IMAGES, plain_sample
from thaw.features.probe import ExtractionJob, choose_engine
from thaw.memory import measure_memory
from thaw.planning.cache_plan import wanted_views
from thaw.planning.costs import ImageCounts
from thaw.planning.measurements import Choice, Measurements, ViewSizes
from thaw.planning.step_timer import StepTimer
from thaw.planning.step_timings import assumed_steps, time_steps
from thaw.recipe import Recipe
from thaw.selection.sample import MANY_CLASSES
from thaw.training.loss import imbalance, make_loss

STEP_IMAGES = 8
"""Images with which training steps are timed."""

SOLVED_ROWS = 512
"""Rows of features on which an evaluation of L-BFGS is timed."""


@dataclass(frozen=True)
class Trainable:
    """What training steps of a run can be timed on: those of its phases, and what lies at the head, in fp32."""

    timer: StepTimer
    head: AtCut

    def timed(self, recipe: Recipe, measured: Measurements) -> Measurements:
        """What was measured, with training steps, which takes a few seconds."""
        with self.timer.classifier.backbone.taking(recipe.head.taken):
            steps = time_steps(recipe, self.timer, self.head, measured.images.train, measured.processes)
        return replace(measured, steps=steps, memory=measure_memory())

    def sized(self, recipe: Recipe, measured: Measurements) -> Measurements:
        """What was measured, with the sizes for what the head of a recipe takes."""
        classifier, backbone = self.timer.classifier, self.timer.classifier.backbone
        with backbone.taking(recipe.head.taken):
            head = new_head(backbone, outputs_of(classifier.task, classifier.classes), recipe.head.hidden)
            at_cuts = [
                AtCut(at.values, at.values.new_empty(len(at.values), backbone.stage_width(position)))
                for at, position in zip(self.timer.features, measured.positions, strict=False)
            ]
            return replace(
                measured,
                sizes=_sizes(at_cuts),
                trained_bytes=tuple(_bytes_above(backbone, head, position) for position in measured.positions),
                feature_width=backbone.feature_width,
            )


def measure(recipe: Recipe, prepared: Prepared, classifier: Classifier, cache: Path) -> tuple[Measurements, Trainable]:
    """Time engines on real images, and count what would be cached; takes a few seconds.

    Training steps are not timed yet but assumed to be as fast as the frozen part.
    """
    backbone, manifest = classifier.backbone, prepared.manifest
    device = choose_device(recipe.device)
    classifier.to(device.device)
    train = manifest.indices("train")
    images = ImageCounts(len(train), len(manifest.indices("val")), len(manifest.indices("test")))
    pixels = plain_sample(prepared.pixels, train, PROBE_IMAGES)
    positions = tuple(backbone.cut(phase.cut).position for phase in recipe.phases)
    features = _features_at(classifier, positions, pixels[:STEP_IMAGES])
    frozen = [index for index, position in enumerate(positions) if position > 0]
    processes = launched_processes()
    extracted = (wanted_views(recipe, frozen, images.train)[0] * images.train + images.evaluated) // processes
    cache.mkdir(parents=True, exist_ok=True)
    # Settings are selected with these features later, so that the engine is built only once.
    with backbone.taking(backbone.widest_features if recipe.head.features == "auto" else backbone.features):
        job = ExtractionJob(backbone, device.device, positions, pixels, extracted)
        engine = choose_engine(job, recipe.engine, cache)
    at_cuts = [features[position] for position in positions]
    timer = StepTimer(classifier, recipe.phases, at_cuts)
    measured = Measurements(
        task=manifest.task,
        images=images,
        imbalance=imbalance(manifest.targets()[train], len(manifest.classes)),
        facts=backbone.facts,
        device=device,
        engine=engine,
        steps=assumed_steps(recipe, timer, engine.images_per_second, processes),
        threads=torch.get_num_threads(),
        positions=positions,
        sizes=_sizes(at_cuts),
        trained_bytes=tuple(_bytes_above(backbone, classifier.head, position) for position in positions),
        feature_width=backbone.feature_width,
        free_bytes=shutil.disk_usage(cache).free + sum(entry.size for entry in cache_entries(cache, ("features",))),
        group_by=Choice("split.group_by", *origin_of_groups(recipe.split, manifest)),
        processes=processes,
        device_free_bytes=free_bytes(device.device),
        pixel_bytes=bytes_on_device(prepared.pixels),
        memory=measure_memory(),
        outputs=outputs_of(manifest.task, classifier.classes),
        solving=solving_rate(classifier),
    )
    return measured, Trainable(timer, features[backbone.head_position])


def solving_rate(classifier: Classifier) -> float:
    """Floating-point operations per second of the loss of a linear head and its gradient; infinite for few outputs.

    Few outputs take no longer than the features take to read.
    """
    outputs, width = outputs_of(classifier.task, classifier.classes), classifier.backbone.feature_width
    if outputs <= MANY_CLASSES:
        return inf
    device, loss, rate = classifier.device, make_loss(classifier.task, None, 0.0), 0.0
    features = torch.zeros(SOLVED_ROWS, width, device=device)
    weight = torch.zeros(outputs, width, device=device, requires_grad=True)
    shape = (SOLVED_ROWS, outputs) if classifier.task == "multilabel" else (SOLVED_ROWS,)
    targets = torch.zeros(shape, device=device, dtype=torch.float32 if classifier.task == "multilabel" else torch.int64)
    for _ in range(3):
        started, weight.grad = time.perf_counter(), None
        loss(features @ weight.T, targets).backward()
        assert weight.grad is not None
        float(weight.grad[0, 0])
        rate = max(rate, 4 * SOLVED_ROWS * width * outputs / (time.perf_counter() - started))
    return rate


def _sizes(at_cuts: Sequence[AtCut]) -> tuple[ViewSizes, ...]:
    """Of one view of what lies at each cut."""
    return tuple(ViewSizes(bytes_of_view(at, "float16"), bytes_of_view(at, "uint8")) for at in at_cuts)


def _bytes_above(backbone: Backbone, head: Head, position: int) -> int:
    """Of the weights above a position."""
    weights = (*backbone.state_from(position).values(), *head.state_dict().values())
    return sum(value.nbytes for value in weights)


def _features_at(classifier: Classifier, positions: tuple[int, ...], pixels: Tensor) -> dict[int, AtCut]:
    """What lies at each cut and at the head for some images, in fp32."""
    at, start, found = AtCut.above_nothing(classifier.normalise(pixels.to(classifier.device))), 0, {}
    with torch.no_grad():
        for position in sorted({*positions, classifier.backbone.head_position}):
            at, start = classifier.backbone.advance(at, start, position), position
            found[position] = at
    return found
