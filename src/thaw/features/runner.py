"""The contract of whoever executes the frozen part, and the probe that chooses the number format."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.features.torch_runner import Precision, TorchRunner

TOLERANCE = 0.03
WORTHWHILE = 1.1
_ROUNDS = 3


class Runner(Protocol):
    """Executes the frozen blocks."""

    name: str

    def run(self, pixels: Tensor, positions: Sequence[int]) -> list[Tensor]:
        """Outputs at ascending `positions` for pixels (N, S, S, 3) uint8 0..255, float32, without gradients."""
        ...


@dataclass(frozen=True)
class Probe:
    """What the probe chose: the number format, why, and how many images a second the whole backbone then takes."""

    precision: Precision
    reason: str
    images_per_second: float


def probe_precision(
    backbone: Backbone, device: torch.device, wanted: Literal["auto", "fp32", "bf16"], pixels: Tensor
) -> Probe:
    """Time fp32 and bf16 on real pixels (N, S, S, 3) uint8, alternating, and compare their pooled features.

    bf16 is chosen where its median time is at least 1.1 times shorter and its features lie within 3 % (relative
    L2 distance, the worst image) of fp32's.
    """
    last = len(backbone.block_names)
    formats: tuple[Precision, ...] = ("fp32", "bf16") if wanted == "auto" else (wanted,)
    runners = {precision: TorchRunner(backbone, device, precision) for precision in formats}
    features = {precision: runner.run(pixels, [last])[0] for precision, runner in runners.items()}
    seconds: dict[str, list[float]] = {precision: [] for precision in formats}
    for _ in range(_ROUNDS):
        for precision, runner in runners.items():
            seconds[precision].append(_time(runner, pixels, last, device))
    rate = {precision: len(pixels) / statistics.median(times) for precision, times in seconds.items()}
    if wanted != "auto":
        return Probe(wanted, "as asked", rate[wanted])
    distance = _worst_distance(features["bf16"], features["fp32"])
    gain = rate["bf16"] / rate["fp32"]
    figures = f"bf16 runs at {gain:.2f}x the speed of fp32 and differs by {distance:.1%}"
    if gain >= WORTHWHILE and distance <= TOLERANCE:
        return Probe("bf16", f"{figures} (at most {TOLERANCE:.0%})", rate["bf16"])
    return Probe("fp32", f"{figures}; wanted {WORTHWHILE}x and at most {TOLERANCE:.0%}", rate["fp32"])


def _time(runner: TorchRunner, pixels: Tensor, last: int, device: torch.device) -> float:
    started = time.perf_counter()
    runner.run(pixels, [last])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _worst_distance(features: Tensor, reference: Tensor) -> float:
    norms = reference.norm(dim=1).clamp_min(1e-12)
    distances = (features - reference).norm(dim=1) / norms
    return float(distances.nan_to_num(nan=torch.inf).max())
