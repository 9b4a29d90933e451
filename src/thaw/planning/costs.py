"""What a run will take: rates measured on this machine, bytes counted, and the forecast that follows from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thaw.classifier.classifier import Classifier
from thaw.features.torch_runner import Precision
from thaw.recipe import Phase
from thaw.training.arithmetic import training_arithmetic

GIB = 1 << 30
_WARM_UP, _ROUNDS = 1, 2
# Solving a head: 39 looks at all features for each penalty (solar cells, MobileNetV2, mean of five penalties), each of
# which reads them twice, from memory that gives 4 GB/s at least.
_LOOKS_PER_PENALTY, _BYTES_PER_SECOND = 39, 4e9


@dataclass(frozen=True)
class Rates:
    """Images a second: `extraction` through the whole frozen backbone, `train` through one training step of each phase."""

    extraction: float
    train: tuple[float, ...]


@dataclass(frozen=True)
class StepTimings:
    """The number format of the thawed part, why, and images a second of a training step of each phase."""

    precision: Precision
    reason: str
    rates: tuple[float, ...]


@dataclass(frozen=True)
class ImageCounts:
    """How many images there are to train on, to validate on, and to look at once as they are (validation and test)."""

    train: int
    val: int
    plain: int


@dataclass(frozen=True)
class Forecast:
    """Seconds and bytes that a run should take.

    phase_seconds: of all epochs of a phase, which may stop earlier or be left out. epoch_seconds: of one of them.
    """

    extraction_seconds: float
    phase_seconds: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    disk_bytes: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Forecast:
        """The forecast that plan.json keeps."""
        return cls(
            values.get("extraction_seconds", values.get("look_seconds")),
            tuple(values["phase_seconds"]),
            tuple(values["epoch_seconds"]),
            values["disk_bytes"],
        )

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.extraction_seconds + sum(self.phase_seconds)


def forecast(
    phases: Sequence[Phase], rates: Rates, images: ImageCounts, views: int, disk_bytes: int, feature_bytes: int
) -> Forecast:
    """What the phases should take, when `views` views are stored for each phase whose inputs are.

    `feature_bytes` is what the pooled features of one view take in memory.
    """
    stores = any(phase.inputs == "stored" for phase in phases)
    extraction = (images.train * views + images.plain) / rates.extraction if stores else 0.0
    seconds = []
    for phase, rate in zip(phases, rates.train, strict=True):
        if phase.solver == "lbfgs":
            epoch = _LOOKS_PER_PENALTY * 2 * images.train * views * feature_bytes / _BYTES_PER_SECOND
        else:
            epoch = images.train / rate
        epoch += images.val / (2.5 * rate)
        if phase.inputs == "fresh" and phase.cut != "pixels":
            epoch += (images.train + images.val) / rates.extraction
        seconds.append(epoch)
    phase_seconds = tuple(phase.epochs * epoch for phase, epoch in zip(phases, seconds, strict=True))
    return Forecast(extraction, phase_seconds, tuple(seconds), disk_bytes)


def training_rate(classifier: Classifier, phase: Phase, precision: Precision, features: Tensor) -> float:
    """Images a second of forward and backward above the phase's cut on features there; weights stay as they are."""
    backbone = classifier.backbone
    cut = backbone.cut(phase.cut)
    backbone.thaw(cut, "frozen")
    inputs = features.repeat(-(-min(phase.batch_size, 32) // len(features)), *[1] * (features.ndim - 1))
    seconds = []
    for _ in range(_WARM_UP + _ROUNDS):
        started = time.perf_counter()
        with training_arithmetic(classifier.device, precision):
            loss = classifier.above(inputs, cut.position).float().square().mean()
        loss.backward()
        float(loss.detach())
        seconds.append(time.perf_counter() - started)
    classifier.zero_grad(set_to_none=True)
    backbone.thaw(backbone.cut("head"), "frozen")
    return len(inputs) / min(seconds[_WARM_UP:])
