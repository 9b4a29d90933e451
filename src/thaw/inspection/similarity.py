"""How far the images lie from those the backbone was pre-trained on, measured in its own BatchNorm statistics.

Each BatchNorm stores the mean and variance of every channel over the pre-training data, so the old images are not
needed. The shift of a channel is the squared 2-Wasserstein distance of two normal distributions in units of the stored
standard deviation, ((m - m0) / s0)^2 + (s / s0 - 1)^2; that of a layer is the root mean square over its channels, and
that of a stage the mean over its layers. Measured with MobileNetV2 of ImageNet: photographs of insects 0.2, of waste on
a white ground 0.4, solar cells and rolled steel 0.6 to 0.7, noise 1.1.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.batchnorm import BatchNormLayer
from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.cache import recall, remember

Verdict = Literal["similar", "moderately different", "very different", "unknown"]

SIMILAR, DIFFERENT = 0.3, 0.55
"""Feature shift up to which images count as similar to the pre-training data, and from which as very different."""

SAMPLE = 96
"""Images that are enough to measure the shift."""

_BATCH = 4
"""The maps of few images stay in the caches of a core: half the time of a batch of 16 on a CPU (MobileNetV2)."""

_FILE = "similarity.json"


@dataclass(frozen=True)
class StageShift:
    """Feature shift of one stage of the backbone, in standard deviations of the pre-training."""

    stage: str
    shift: float


@dataclass(frozen=True)
class Similarity:
    """Feature shift of a data set.

    Attributes:
        shift: Mean over the stages, in standard deviations; `None` for a network without trained BatchNorm statistics.
        stages: From the pixels up; empty where `shift` is `None`.
    """

    shift: float | None
    stages: tuple[StageShift, ...]
    verdict: Verdict


@dataclass
class _Moments:
    """Running sums of mean and mean square of each channel, weighted by the number of images."""

    mean_sum: Tensor | float = 0.0
    square_sum: Tensor | float = 0.0
    images: int = 0

    def add(self, values: Tensor) -> None:
        # In channels_last, `torch.var_mean` takes 2 to 30 times as long as two means.
        axes = [0, *range(2, values.ndim)]
        # Apple's GPUs have no double precision.
        self.mean_sum = self.mean_sum + len(values) * values.mean(axes).cpu().double()
        self.square_sum = self.square_sum + len(values) * values.square().mean(axes).cpu().double()
        self.images += len(values)


def measure_similarity(backbone: Backbone, pixels: Tensor) -> Similarity:
    """Measure the feature shift of images in one forward pass.

    Args:
        backbone: The pre-trained backbone, in eval mode.
        pixels: (N, S, S, 3) uint8; `SAMPLE` images are enough.

    Returns:
        The similarity, `unknown` for random weights and for a network without BatchNorm.
    """
    layers = backbone.batchnorm_layers()
    if not layers or all(layer.is_untrained for layer in layers):
        return Similarity(None, (), "unknown")
    shifts: defaultdict[str, list[float]] = defaultdict(list)
    for layer, moments in zip(layers, _input_moments(backbone, layers, pixels), strict=True):
        if moments.images:
            shifts[layer.stage].append(_shift(layer, moments))
    stages = tuple(StageShift(stage, float(np.mean(values))) for stage, values in shifts.items())
    shift = float(np.mean([stage.shift for stage in stages]))
    return Similarity(shift, stages, verdict_of(shift))


def remembered_similarity(backbone: Backbone, pixels: Tensor, cache: Path) -> Similarity:
    """As `measure_similarity`, measured once for the same weights and images; the result is kept in the cache."""
    described = (backbone.digest(backbone.head_position, "last"), backbone.facts.mean, backbone.facts.std, pixels.shape)
    digest = hashlib.sha256(repr(described).encode())
    digest.update(pixels.contiguous().numpy().data)
    key = digest.hexdigest()[:32]
    found: Any = recall(cache, _FILE, key)
    try:
        return Similarity(found["shift"], tuple(StageShift(**stage) for stage in found["stages"]), found["verdict"])
    except (TypeError, KeyError):
        measured = measure_similarity(backbone, pixels)
        remember(cache, _FILE, key, asdict(measured))
        return measured


def verdict_of(shift: float) -> Verdict:
    """Classify a feature shift."""
    if shift <= SIMILAR:
        return "similar"
    return "moderately different" if shift < DIFFERENT else "very different"


def _input_moments(backbone: Backbone, layers: Sequence[BatchNormLayer], pixels: Tensor) -> list[_Moments]:
    """Moments of the inputs of each BatchNorm layer."""
    collected = [_Moments() for _ in layers]
    normalise = Normalise(backbone.facts.mean, backbone.facts.std).to(backbone.device)
    hooks = [
        layer.module.register_forward_pre_hook(lambda _, inputs, moments=moments: moments.add(inputs[0]))
        for layer, moments in zip(layers, collected, strict=True)
    ]
    try:
        with torch.no_grad():
            for batch in pixels.to(backbone.device).split(_BATCH):
                backbone(normalise(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return collected


def _shift(layer: BatchNormLayer, moments: _Moments) -> float:
    mean = torch.as_tensor(moments.mean_sum) / moments.images
    variance = (torch.as_tensor(moments.square_sum) / moments.images - mean.square()).clamp_min(0)
    stored = (layer.variance + layer.eps).sqrt()
    squared = ((mean - layer.mean) / stored).square() + ((variance + layer.eps).sqrt() / stored - 1).square()
    return float(squared.mean().sqrt())
