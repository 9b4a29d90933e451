"""What a run will take: throughput measured on this machine, bytes counted, and the forecast that follows from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.features.torch_runner import Precision
from thaw.recipe import Phase
from thaw.training.autocast import training_autocast
from thaw.training.folding import folded, frozen_norms

GIB = 1 << 30
_WARM_UP, _ROUNDS = 1, 2
_HOPELESS = 4.0
"""A first pass takes up to twice as long as later ones."""
# L-BFGS: 39 evaluations for each penalty (solar cells, MobileNetV2, mean of five penalties), each of which reads all
# features twice, from memory that delivers at least 4 GB/s.
_EVALUATIONS_PER_PENALTY, _BYTES_PER_SECOND = 39, 4e9
_VALIDATION_SPEEDUP = 2.5
"""How much faster a forward pass is than a training step."""


@dataclass(frozen=True)
class StepTimings:
    """The numeric precision of training, the reason for it, and images per second of a training step of each phase."""

    precision: Precision
    reason: str
    rates: tuple[float, ...]


@dataclass(frozen=True)
class ImageCounts:
    """Readable images in each split."""

    train: int
    val: int
    test: int

    @property
    def evaluated(self) -> int:
        """Images of validation and test, whose features are extracted without augmentation."""
        return self.val + self.test


@dataclass(frozen=True)
class Forecast:
    """Seconds and bytes that a run should take.

    extraction_seconds: of one pass over all views. phase_seconds: of all epochs of a phase, which may stop early or be
    skipped. epoch_seconds: of one of them. disk_bytes: of the cached features, which several processes share.
    processes: how many train together.
    """

    extraction_seconds: float
    phase_seconds: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    disk_bytes: int
    processes: int = 1

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Forecast:
        """The forecast in plan.json."""
        return cls(
            # Release 0.1 wrote `look_seconds`.
            extraction_seconds=values.get("extraction_seconds", values.get("look_seconds")),
            phase_seconds=tuple(values["phase_seconds"]),
            epoch_seconds=tuple(values["epoch_seconds"]),
            disk_bytes=values["disk_bytes"],
            processes=values.get("processes", 1),
        )

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.extraction_seconds + sum(self.phase_seconds)


@dataclass(frozen=True)
class Throughput:
    """Images per second through the frozen backbone, and through a training step of each phase.

    Of one process, with its own cores or GPU; `processes` of them share the work.
    """

    extraction: float
    steps: tuple[float, ...]
    processes: int = 1


def forecast(
    phases: Sequence[Phase],
    throughput: Throughput,
    images: ImageCounts,
    views: Sequence[int],
    disk_bytes: int,
    pooled_bytes: int,
) -> Forecast:
    """What the phases should take.

    Args:
        phases: Phases whose solver and inputs are planned.
        throughput: Measured images per second, and by how many processes.
        images: Images in each split.
        views: For each phase, how many cached views of each training image it trains on.
        disk_bytes: Size of the cached features.
        pooled_bytes: Size of the pooled features of one view in memory.
    """
    # Phases with the same augmentation share their views.
    extracted = {phase.augment: number for phase, number in zip(phases, views, strict=True) if phase.inputs == "cached"}
    total = images.train * sum(extracted.values()) + images.evaluated
    extraction_rate = throughput.processes * throughput.extraction
    extraction = total / extraction_rate if extracted else 0.0
    epochs = []
    for phase, step_rate, number in zip(phases, throughput.steps, views, strict=True):
        if phase.solver == "lbfgs":
            # By the main process alone.
            seconds = _EVALUATIONS_PER_PENALTY * 2 * images.train * number * pooled_bytes / _BYTES_PER_SECOND
            seconds += images.val / (_VALIDATION_SPEEDUP * step_rate)
        else:
            rate = throughput.processes * step_rate
            seconds = images.train / rate + images.val / (_VALIDATION_SPEEDUP * rate)
        if phase.inputs == "fresh" and phase.cut != "pixels":
            seconds += (images.train + images.val) / extraction_rate
        epochs.append(seconds)
    phase_seconds = tuple(phase.epochs * seconds for phase, seconds in zip(phases, epochs, strict=True))
    return Forecast(extraction, phase_seconds, tuple(epochs), disk_bytes, throughput.processes)


def training_rate(
    classifier: Classifier, phase: Phase, precision: Precision, features: AtCut, wanted: float = 0.0
) -> float:
    """Images per second of forward and backward passes above the cut of a phase, given what lies there.

    Weights are not changed. Where the first pass is `_HOPELESS` times slower than the `wanted` rate, it is the last.
    """
    backbone = classifier.backbone
    cut = backbone.cut(phase.cut)
    backbone.thaw(cut, "frozen")
    copies = -(-min(phase.batch_size, 32) // len(features.values))
    inputs = AtCut(*(torch.cat([part] * copies) for part in features))
    norms = frozen_norms(classifier, cut.position, features) if phase.batchnorm == "frozen" else {}
    seconds = []
    for _ in range(_WARM_UP + _ROUNDS):
        started = time.perf_counter()
        with training_autocast(classifier.device, precision), folded(norms):
            loss = classifier(inputs, cut.position).float().square().mean()
        loss.backward()
        float(loss.detach())
        seconds.append(time.perf_counter() - started)
        if len(inputs.values) / seconds[0] * _HOPELESS < wanted:
            break
    classifier.zero_grad(set_to_none=True)
    backbone.thaw(backbone.cut("head"), "frozen")
    return len(inputs.values) / min(seconds[_WARM_UP:] or seconds)
