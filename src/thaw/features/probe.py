"""Which engine runs the frozen part: a probe of speed and accuracy on images of the run.

Only engines whose probe pays for itself are tried (`EngineSpec.probe_above`). Results are remembered for this machine
and architecture as long as they hold: the probe is repeated when the reference runs faster than it did, because the
machine was busy then, and when the chosen engine does not agree with it for new weights or on new images.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.cache import recall, remember
from thaw.device import device_name, synchronize
from thaw.errors import RecipeError
from thaw.features.engines import ENGINES, INT8, REFERENCE, Runner, failure, make_runner, missing, required, unusable
from thaw.formats import percent
from thaw.recipe import Engine

TOLERANCE = 0.03
"""Largest relative L2 distance of the features of any image from those of fp32 PyTorch."""

MIN_SPEEDUP = 1.1
"""How many times faster bf16 must be than fp32 to be used in spite of its rounding."""

ROUNDS = 3

BUSY = 1.5
"""How many times faster than in a remembered probe the reference may run before the probe is repeated."""

_FEW = 4
"""Images for each thread that tell whether the machine was busy."""

_FILE = "engines.json"


@dataclass(frozen=True)
class EngineTiming:
    """The probe of one engine.

    images_per_second: through the frozen part. distance: largest relative L2 distance of the features from those
    of fp32 PyTorch. problem: why the engine cannot be used; then the numbers mean nothing.
    """

    engine: Engine
    images_per_second: float = 0.0
    distance: float = 0.0
    problem: str = ""

    def describe(self) -> str:
        """One phrase, such as "openvino-bf16 278/s (differs by 0.5%)"."""
        if self.problem:
            return f"{self.engine} {self.problem}"
        differs = "" if self.engine == REFERENCE else f" (differs by {percent(self.distance)})"
        return f"{self.engine} {self.images_per_second:.0f}/s{differs}"


@dataclass(frozen=True)
class EngineChoice:
    """The chosen engine, one sentence that says why, and its speed."""

    engine: Engine
    reason: str
    images_per_second: float


@dataclass(frozen=True)
class _Probe:
    """What is remembered: timings, and the digest of the images on which the distance of the best engine was found."""

    images: str
    timings: Sequence[EngineTiming]


@dataclass(frozen=True)
class ExtractionJob:
    """Features to extract, for which engines are probed.

    Attributes:
        backbone: Its part below the highest of `positions` is run.
        device: Where it is run.
        positions: Positions of the cuts whose features are extracted.
        pixels: Sample images of the run, (N, S, S, 3) uint8.
        images: Number of images, or views, that are extracted.
    """

    backbone: Backbone
    device: torch.device
    positions: Sequence[int]
    pixels: Tensor
    images: int

    @property
    def top(self) -> int:
        """The highest position, below which all is frozen."""
        return max(self.positions)

    @cached_property
    def reference(self) -> AtCut:
        """What every engine should compute."""
        (features,) = make_runner(REFERENCE, self.backbone, self.device, [self.top]).run(self.pixels)
        return features

    @cached_property
    def digest(self) -> str:
        """Of the sample images."""
        return hashlib.sha256(self.pixels.cpu().numpy().tobytes()).hexdigest()[:32]


def choose_engine(job: ExtractionJob, wanted: Literal["auto"] | Engine, cache: Path) -> EngineChoice:
    """The fastest engine that agrees with fp32 PyTorch; for a network in int8 the only one.

    Args:
        job: What is extracted.
        wanted: `auto`, or the engine to use, which is then only timed.
        cache: Folder in which the result is remembered.

    Raises:
        RecipeError: The wanted engine, or the only one, cannot run the network on this machine.
    """
    if job.top == 0:
        return EngineChoice(REFERENCE, "nothing is frozen", float("inf"))
    if wanted != "auto" and (problem := unusable(wanted, job.backbone, job.device)):
        raise RecipeError(f"engine: {wanted} {problem}; use auto")
    if job.backbone.facts.int8:
        return _only_engine_for_int8(job)
    if wanted != "auto":
        with required(f"engine: {wanted}"):
            return EngineChoice(wanted, "as requested", _time_engine(job, wanted, None).images_per_second)
    for_weights, for_architecture = _keys(job)
    of_weights = _recalled(cache, for_weights)
    remembered = of_weights or _recalled(cache, for_architecture)
    if remembered and not _was_busy(job, remembered.timings):
        if of_weights and of_weights.images == job.digest:
            return _choose(of_weights.timings, "remembered from an earlier run: ")
        if timings := _confirmed(remembered.timings, job):
            remember(cache, _FILE, for_weights, asdict(_Probe(job.digest, timings)))
            return _choose(
                timings, f"remembered from an earlier run with other {'images' if of_weights else 'weights'}: "
            )
    timings = _probe(job)
    # A job too small for more than plain PyTorch must not decide for a later, larger one.
    if any(ENGINES[timing.engine].kind != "pytorch" for timing in timings):
        for key in (for_weights, for_architecture):
            remember(cache, _FILE, key, asdict(_Probe(job.digest, timings)))
    return _choose(timings, "")


def _only_engine_for_int8(job: ExtractionJob) -> EngineChoice:
    """The engine of networks in int8, timed; raises `RecipeError` where it is missing or fails."""
    if problem := unusable(INT8, job.backbone, job.device):
        raise RecipeError(f"engine: {INT8} {problem}")
    with required(f"engine: {INT8}", "no other engine runs weights in int8, so use those that they were made from"):
        rate = _time_engine(job, INT8, None).images_per_second
    return EngineChoice(INT8, f"the weights are in int8, which it computes in integers: {rate:.0f}/s", rate)


def agrees(timing: EngineTiming) -> bool:
    """Whether the features of an engine are close enough to those of fp32 PyTorch."""
    return not timing.problem and timing.distance <= TOLERANCE


def distance_between(features: Tensor, reference: Tensor) -> float:
    """Largest relative L2 distance of features (N, C) from the reference over images; infinite where not finite."""
    norms = reference.norm(dim=1).clamp_min(1e-12)
    distances = (features.cpu() - reference.cpu()).norm(dim=1) / norms.cpu()
    return float(distances.nan_to_num(nan=torch.inf).max())


def distance_at_cut(found: AtCut, reference: AtCut) -> float:
    """The larger of the distances of the values and of the statistics of stages."""
    pairs = zip(found, reference, strict=True)
    return max(distance_between(part.float().flatten(1), other.float().flatten(1)) for part, other in pairs)


def _confirmed(remembered: Sequence[EngineTiming], job: ExtractionJob) -> list[EngineTiming]:
    """Remembered timings with the distance of the best engine for this job; none where it does not agree."""
    best = _best(remembered)
    if best.engine == REFERENCE:
        return list(remembered)
    found = _time_engine(job, best.engine, job.reference)
    confirmed = replace(best, distance=found.distance)
    return [confirmed if timing is best else timing for timing in remembered] if agrees(found) else []


def _was_busy(job: ExtractionJob, remembered: Sequence[EngineTiming]) -> bool:
    """Whether the machine was busy when engines were probed, by the speed of the reference then and now."""
    then = [timing.images_per_second for timing in remembered if timing.engine == REFERENCE and not timing.problem]
    if not then:
        return False
    # A batch of few images is no faster per image than the one of the probe, up to 14% slower.
    few = replace(job, pixels=job.pixels[: _FEW * torch.get_num_threads()])
    return _time_engine(few, REFERENCE, None).images_per_second > BUSY * then[0]


def _probe(job: ExtractionJob) -> list[EngineTiming]:
    """Timings of the engines whose probe pays, the cheapest to probe first."""
    available = [engine for engine in ENGINES if not missing(engine, job.device)]
    timings: list[EngineTiming] = []
    for probe_above, group in groupby(available, key=lambda engine: ENGINES[engine].probe_above):
        usable = [timing for timing in timings if agrees(timing)]
        fastest = max((timing.images_per_second for timing in usable), default=0.0)
        if probe_above is None or (fastest and job.images / fastest <= probe_above):
            continue
        for engine in group:
            usable_kinds = {ENGINES[timing.engine].kind for timing in timings if agrees(timing)}
            if ENGINES[engine].unless not in usable_kinds:
                timings.append(_time_engine(job, engine, job.reference))
    return timings


def _time_engine(job: ExtractionJob, engine: Engine, reference: AtCut | None) -> EngineTiming:
    """Build an engine and time it; with a reference to compare it with, an error of the engine is its problem."""
    if problem := unusable(engine, job.backbone, job.device):
        return EngineTiming(engine, problem=problem)
    try:
        runner = make_runner(engine, job.backbone, job.device, [job.top], job.pixels.shape[1])
        # This first run of each engine, which takes longer than later ones, is not timed.
        features = job.reference if engine == REFERENCE else runner.run(job.pixels)[0]
        # The fastest round is the one that other work on this machine disturbed least.
        rounds = 1 if engine == REFERENCE else ROUNDS
        rate = len(job.pixels) / min(run_seconds(runner, job.pixels, job.device) for _ in range(rounds))
    # Compilers and engines fail in ways of their own on a network that they do not support; fp32 PyTorch remains.
    except Exception as error:
        if reference is None:
            raise
        return EngineTiming(engine, problem=failure(error))
    return EngineTiming(engine, rate, 0.0 if reference is None else distance_at_cut(features, reference))


def run_seconds(runner: Runner, pixels: Tensor, device: torch.device) -> float:
    """How long an engine takes for some images, (N, S, S, 3) uint8."""
    started = time.perf_counter()
    runner.run(pixels)
    synchronize(device)
    return time.perf_counter() - started


def _best(timings: Sequence[EngineTiming]) -> EngineTiming:
    """The fastest engine that agrees, where bf16 must be faster by `MIN_SPEEDUP`."""

    def score(timing: EngineTiming) -> float:
        return timing.images_per_second / (MIN_SPEEDUP if ENGINES[timing.engine].precision == "bf16" else 1.0)

    return max((timing for timing in timings if agrees(timing)), key=score)


def _choose(timings: Sequence[EngineTiming], prefix: str) -> EngineChoice:
    """The best engine, compared with the others."""
    best = _best(timings)
    others = ", ".join(timing.describe() for timing in timings if timing is not best)
    refused = any(not timing.problem and not agrees(timing) for timing in timings)
    compared = f"compared with {others}" if others else "too few images for a probe to pay"
    limit = f"; at most {percent(TOLERANCE, 0)} is accepted" if refused else ""
    return EngineChoice(best.engine, f"{prefix}{best.describe()}, {compared}{limit}", best.images_per_second)


def _keys(job: ExtractionJob) -> tuple[str, str]:
    """Hashes of everything that a probe holds for: with the weights, and with the architecture alone.

    Speed does not depend on weights, but rounding does.
    """
    packages = dict.fromkeys(spec.package for spec in ENGINES.values())
    backbone = job.backbone
    machine = (
        device_name(job.device),
        platform.node(),
        torch.get_num_threads(),
        [f"{name} {version(name)}" for name in packages if find_spec(name)],
        job.pixels.shape[1],
        job.top,
    )
    facts = backbone.facts
    architecture = (facts.architecture, facts.model_args, facts.int8, backbone.pooling, backbone.features)
    weights, any_weights = (
        hashlib.sha256(repr((*machine, what)).encode()).hexdigest()[:32]
        for what in (backbone.digest(job.top), architecture)
    )
    return weights, any_weights


def _recalled(cache: Path, key: str) -> _Probe | None:
    found: Any = recall(cache, _FILE, key)
    try:
        # Earlier versions remembered a list of timings, without the images.
        return _Probe(found["images"], [EngineTiming(**item) for item in found["timings"]])
    except (TypeError, KeyError):
        return None
