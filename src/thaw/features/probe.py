"""Which engine runs the frozen part: a start-up probe of speed *and* value on the run's own images.

Probing must pay: a job that takes plain PyTorch a few seconds is not probed at all, and compiling, which takes tens of
seconds, is tried only for long jobs without a better engine. What was found is remembered for this machine.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from thaw import atomic
from thaw.backbones.contract import Backbone
from thaw.device import worker_count
from thaw.features.engines import REFERENCE, Runner, make_runner, missing
from thaw.recipe import Engine

TOLERANCE = 0.03
"""Largest distance of the pooled features from those of fp32 PyTorch: relative, in the L2 norm, of the worst image."""

PROBE_PAYS = 4.0
COMPILE_PAYS = 240.0
"""Seconds that the job must take with the best engine so far before probing OpenVINO (1 to 3 s), or compiling (20 to
60 s), is worth its own time."""

WORTHWHILE = 1.1
"""How many times faster bf16 must be to be worth its rounding."""

ROUNDS = 3
_FILE = "engines.json"


@dataclass(frozen=True)
class EngineTiming:
    """One engine: images a second through the frozen part, and how far its features lie from fp32 PyTorch's.

    `problem` says why an engine is out of the question; then the figures mean nothing.
    """

    engine: Engine
    images_per_second: float = 0.0
    distance: float = 0.0
    problem: str = ""

    def describe(self) -> str:
        """For people, such as "openvino-bf16 278/s (differs by 0.5%)"."""
        if self.problem:
            return f"{self.engine} {self.problem}"
        differs = "" if self.engine == REFERENCE else f" (differs by {self.distance:.1%})"
        return f"{self.engine} {self.images_per_second:.0f}/s{differs}"


@dataclass(frozen=True)
class EngineChoice:
    """The engine that was chosen, why, and its images a second."""

    engine: Engine
    reason: str
    images_per_second: float


def choose_engine(
    backbone: Backbone,
    device: torch.device,
    wanted: Literal["auto"] | Engine,
    positions: Sequence[int],
    pixels: Tensor,
    images: int,
    cache: Path,
) -> EngineChoice:
    """The fastest engine that agrees with fp32 PyTorch, for `images` images through the frozen part.

    `pixels` are images of the run, (N, S, S, 3) uint8; the frozen part is what lies below the highest of `positions`.
    An engine that the recipe names is taken, and only timed.
    """
    top = max(positions)
    if top == 0:
        return EngineChoice(REFERENCE, "nothing is frozen", float("inf"))
    key = _key(backbone, device, top)
    if wanted != "auto":
        return EngineChoice(wanted, "as asked", _try(wanted, backbone, device, top, pixels, None).images_per_second)
    remembered = _recall(cache, key)
    if remembered:
        return _chosen(remembered, "remembered from an earlier run: ")
    tried = _try_all(backbone, device, top, pixels, images)
    # A job too small for a full probe must not decide for a later, larger one.
    if any(item.engine.startswith(("openvino", "compiled")) for item in tried):
        _remember(cache, key, tried)
    return _chosen(tried, "")


def agrees(item: EngineTiming) -> bool:
    """Whether an engine may be used."""
    return not item.problem and item.distance <= TOLERANCE


def distance_between(features: Tensor, reference: Tensor) -> float:
    """Relative L2 distance of features (N, C) from the reference, of the worst image; infinite where not finite."""
    norms = reference.norm(dim=1).clamp_min(1e-12)
    distances = (features.cpu() - reference.cpu()).norm(dim=1) / norms.cpu()
    return float(distances.nan_to_num(nan=torch.inf).max())


def _try_all(backbone: Backbone, device: torch.device, top: int, pixels: Tensor, images: int) -> list[EngineTiming]:
    reference = make_runner(REFERENCE, backbone, device, [top]).run(pixels)[0].flatten(1)
    tried: list[EngineTiming] = []

    def seconds_left() -> float:
        best = max((item.images_per_second for item in tried if agrees(item)), default=0.0)
        return images / best if best else float("inf")

    def attempt(engine: Engine) -> None:
        tried.append(_try(engine, backbone, device, top, pixels, reference))

    attempt(REFERENCE)
    if seconds_left() > PROBE_PAYS:
        if device.type == "cpu" and find_spec("openvino"):
            attempt("openvino-fp32")
            attempt("openvino-bf16")
        else:
            attempt("pytorch-bf16")
    if seconds_left() > COMPILE_PAYS and not any(agrees(item) and "openvino" in item.engine for item in tried):
        attempt("compiled-bf16")
    return tried


def _try(
    engine: Engine, backbone: Backbone, device: torch.device, top: int, pixels: Tensor, reference: Tensor | None
) -> EngineTiming:
    """Build an engine and time it; whatever it raises is its problem and not the run's."""
    if problem := missing(engine, device):
        return EngineTiming(engine, problem=problem)
    try:
        runner = make_runner(engine, backbone, device, [top])
        features = runner.run(pixels)[0].flatten(1)
        rate = len(pixels) / median_seconds(runner, pixels, device, ROUNDS)
    # Compilers and engines fail in ways of their own on a network that they do not know; fp32 PyTorch remains.
    except Exception as error:
        if reference is None:
            raise
        said = str(error).strip().partition("\n")[0][:80]
        return EngineTiming(engine, problem=f"fails here ({type(error).__name__}: {said})")
    return EngineTiming(engine, rate, 0.0 if reference is None else distance_between(features, reference))


def median_seconds(runner: Runner, pixels: Tensor, device: torch.device, rounds: int) -> float:
    """Seconds that a runner takes for some pixels, the median of so many rounds."""
    return statistics.median(_time(runner, pixels, device) for _ in range(rounds))


def _time(runner: Runner, pixels: Tensor, device: torch.device) -> float:
    started = time.perf_counter()
    runner.run(pixels)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _chosen(tried: Sequence[EngineTiming], how: str) -> EngineChoice:
    best = max((item for item in tried if agrees(item)), key=_worth)
    others = ", ".join(item.describe() for item in tried if item is not best)
    refused = [item for item in tried if not item.problem and not agrees(item)]
    limit = f"; at most {TOLERANCE:.0%} may differ" if refused else ""
    reason = (
        f"{how}{best.describe()}{', against ' + others if others else ', too little to look at for a probe'}{limit}"
    )
    return EngineChoice(best.engine, reason, best.images_per_second)


def _worth(item: EngineTiming) -> float:
    return item.images_per_second / (WORTHWHILE if item.engine.endswith("bf16") else 1.0)


def _key(backbone: Backbone, device: torch.device, top: int) -> str:
    """What a result of the probe holds for."""
    packages = [f"{name} {version(name)}" for name in ("torch", "openvino") if find_spec(name)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    facts = (name, platform.node(), worker_count(), packages, backbone.facts.pixels.size, backbone.digest(top), top)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _recall(cache: Path, key: str) -> list[EngineTiming]:
    try:
        return [EngineTiming(**item) for item in json.loads((cache / _FILE).read_bytes())[key]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _remember(cache: Path, key: str, tried: Sequence[EngineTiming]) -> None:
    """Add a result; when two runs write at once, one of them is forgotten and probed again."""
    try:
        known = json.loads((cache / _FILE).read_bytes())
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    cache.mkdir(parents=True, exist_ok=True)
    atomic.write_text(cache / _FILE, json.dumps({**known, key: [asdict(item) for item in tried]}, indent=1))
