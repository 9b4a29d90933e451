"""What a run will take: throughput measured on this machine, bytes counted, and the forecast that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from thaw.memory import UNKNOWN, MemoryUse
from thaw.recipe import Phase
from thaw.training.head_solver import history_size

GIB = 1 << 30
# L-BFGS: 39 evaluations for each penalty (solar cells, MobileNetV2, mean of five penalties), each of which reads all
# features twice, from memory that delivers at least 4 GB/s.
_EVALUATIONS_PER_PENALTY, _BYTES_PER_SECOND = 39, 4e9
LOGIT_BYTES = 3 * 4
"""Of each output for each row of the features that L-BFGS solves: logarithms of the softmax and two gradients."""
_CHECKPOINT_BYTES_PER_SECOND = 100e6
"""Copied, hashed and synchronised with the disk: MobileNetV2's top with AdamW's state, 20 MB, takes 0.2 s on two cores;
all of ResNet50, 283 MB, 2.4 s."""
_VALIDATION_SPEEDUP = 2.5
"""How much faster a forward pass is than a training step."""


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
    """Seconds and bytes that a run should take, but for what is done once, as capturing CUDA graphs (0.4 s at most).

    extraction_seconds: of one pass over all views. phase_seconds: of all epochs of a phase, which may stop early or be
    skipped. epoch_seconds: of one of them. disk_bytes: of the cached features, which several processes share.
    processes: how many train together. memory_bytes: the most that each of them holds, 0 where it is not known.
    """

    extraction_seconds: float
    phase_seconds: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    disk_bytes: int
    processes: int = 1
    memory_bytes: int = 0

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
            memory_bytes=values.get("memory_bytes", 0),
        )

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.extraction_seconds + sum(self.phase_seconds)


@dataclass(frozen=True)
class Throughput:
    """Images per second through the frozen backbone, and through a training step of each phase.

    Of one process, with its own cores or GPU; `processes` of them share the work. solving: floating-point operations
    per second in which L-BFGS evaluates a head of many outputs; infinite for few, where reading features takes longer.
    """

    extraction: float
    steps: tuple[float, ...]
    processes: int = 1
    solving: float = inf


@dataclass(frozen=True)
class Sizes:
    """Bytes: of the cached features, of the pooled features of one view, of what each phase trains, of the process.

    outputs: how many logits a head gives for each view.
    """

    cache: int
    pooled: int
    trained: tuple[int, ...]
    memory: MemoryUse = UNKNOWN
    outputs: int = 0

    def checkpoints(self, index: int) -> int:
        """Of those of one epoch of a phase: the latest with the state of AdamW, and the best so far.

        Both have everything that any phase trains.
        """
        return 2 * max(self.trained) + 2 * self.trained[index]


def forecast(
    phases: Sequence[Phase], throughput: Throughput, images: ImageCounts, views: Sequence[int], sizes: Sizes
) -> Forecast:
    """What the phases should take.

    Args:
        phases: Phases whose solver and inputs are planned.
        throughput: Measured images per second, and by how many processes.
        images: Images in each split.
        views: For each phase, how many cached views of each training image it trains on.
        sizes: What is stored.
    """
    # Phases with the same augmentation share their views.
    extracted = {phase.augment: number for phase, number in zip(phases, views, strict=True) if phase.inputs == "cached"}
    total = images.train * sum(extracted.values()) + images.evaluated
    extraction_rate = throughput.processes * throughput.extraction
    extraction = total / extraction_rate if extracted else 0.0
    epochs = []
    for index, (phase, step_rate, number) in enumerate(zip(phases, throughput.steps, views, strict=True)):
        if phase.solver == "lbfgs":
            # By the main process alone.
            seconds = seconds_of_penalty(images.train * number, sizes, throughput.solving)
            seconds += images.val / (_VALIDATION_SPEEDUP * step_rate)
        else:
            rate = throughput.processes * step_rate
            seconds = images.train / rate + images.val / (_VALIDATION_SPEEDUP * rate)
        if phase.inputs == "fresh" and phase.cut != "pixels":
            seconds += (images.train + images.val) / extraction_rate
        epochs.append(seconds + sizes.checkpoints(index) / _CHECKPOINT_BYTES_PER_SECOND)
    phase_seconds = tuple(phase.epochs * seconds for phase, seconds in zip(phases, epochs, strict=True))
    memory = _memory_bytes(phases, images, views, sizes)
    return Forecast(extraction, phase_seconds, tuple(epochs), sizes.cache, throughput.processes, memory)


def seconds_of_penalty(rows: int, sizes: Sizes, solving: float) -> float:
    """What L-BFGS takes for one penalty: to read the features, or for many outputs to multiply them.

    Args:
        rows: Views of training images.
        sizes: Of a row and of the outputs.
        solving: As `Throughput` has it.
    """
    reading = 2 * rows * sizes.pooled / _BYTES_PER_SECOND
    # Logits and the gradient of the weights: two operations for each number of float32 and each output, twice.
    multiplying = rows * sizes.pooled * sizes.outputs / solving
    return _EVALUATIONS_PER_PENALTY * max(reading, multiplying)


def _memory_bytes(phases: Sequence[Phase], images: ImageCounts, views: Sequence[int], sizes: Sizes) -> int:
    """What the process has taken to run the engine and to time steps, or what its phases add to what it holds now.

    L-BFGS holds the features of all views, their logits and its steps; gradient steps hold gradients, AdamW's state and
    the best weights.
    """

    def added(index: int) -> int:
        trained = sizes.trained[index]
        if phases[index].solver != "lbfgs":
            return 4 * trained
        steps = min(_EVALUATIONS_PER_PENALTY, history_size(max(1, trained // 4)))
        return images.train * views[index] * (sizes.pooled + LOGIT_BYTES * sizes.outputs) + 2 * steps * trained

    return max(sizes.memory.peak, sizes.memory.now + max(map(added, range(len(phases)))))
