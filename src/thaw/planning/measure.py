"""Measure, on this machine and this data, what the plan needs to know."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from thaw.classifier.classifier import Classifier
from thaw.data.prepare import Prepared
from thaw.device import choose_device
from thaw.features.extract import bytes_per_view
from thaw.features.runner import probe_precision
from thaw.planning.costs import training_rate
from thaw.planning.plan import Measured
from thaw.recipe import Recipe
from thaw.training.loss import imbalance

PROBE_IMAGES = 16


def measure_run(recipe: Recipe, prepared: Prepared, classifier: Classifier, cache: Path) -> Measured:
    """Probe number formats and training steps on real images, and count what is stored; a few seconds."""
    backbone, manifest = classifier.backbone, prepared.manifest
    device = choose_device(recipe.device)
    classifier.to(device.device)
    train = manifest.indices("train")
    sample = train[np.linspace(0, len(train) - 1, min(PROBE_IMAGES, len(train))).astype(int)]
    pixels = torch.from_numpy(np.stack([prepared.pixels.plain(int(row)) for row in sample]))
    probe = probe_precision(backbone, device.device, recipe.precision, pixels)
    positions = tuple(backbone.cut(phase.cut).position for phase in recipe.phases)
    sizes = bytes_per_view(backbone, positions)
    cache.mkdir(parents=True, exist_ok=True)
    return Measured(
        task=manifest.task,
        train_images=len(train),
        val_images=len(manifest.indices("val")),
        imbalance=imbalance(manifest.targets()[train], len(manifest.classes)),
        facts=backbone.facts,
        device=device,
        probe=probe,
        positions=positions,
        bytes_per_view=tuple(sizes[position] for position in positions),
        training_rates=tuple(training_rate(classifier, phase, probe.precision) for phase in recipe.phases),
        free_bytes=shutil.disk_usage(cache).free,
    )
