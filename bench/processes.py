"""How much faster two processes of one thread each are than one: feature extraction, and training above a cut.

    python bench/processes.py [--images N] [--size PX] [--rounds N] [--epochs N] [--case NAME:CUT:BATCH]

Starts itself twice with torchrun. In each round the first process works alone while the other one waits, then both
work together, and then each by itself on all of the work at the same time, which is what the machine allows: its cores
may share caches, memory and more. Printed are the medians, in images per second of the whole job, and the efficiency:
the rate together over twice the rate alone. Images and weights are random; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head
from thaw.data.augment import PRESETS
from thaw.device import CPU, keep_freed_memory
from thaw.distributed import launched
from thaw.distributed.joining import joined
from thaw.distributed.machine import use_own_part
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract
from thaw.features.view_request import ViewRequest
from thaw.processes import ALONE, Process
from thaw.recipe import DecodeSettings, PreprocessingSettings, ResolvedPhase
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.sources import CachedSource, PhaseSources

CLASSES, VALIDATED = 3, 16


@dataclass(frozen=True)
class Job:
    """One data set and network, for which features are extracted and a cut is trained."""

    case: str
    images: int
    size: int
    epochs: int
    engine: str

    def classifier(self) -> tuple[Classifier, ResolvedPhase]:
        name, _, rest = self.case.partition(":")
        cut, _, batch = rest.rpartition(":")
        backbone = build(name, "random", PreprocessingSettings(image_size=self.size))
        head = new_head(backbone, CLASSES)
        phase = ResolvedPhase(name="top", cut=cut, epochs=self.epochs, lr=1e-3, batch_size=int(batch), patience=1000)
        return Classifier(backbone, head, "abc", "multiclass", DecodeSettings()), phase

    def rates(self, process: Process, place: Path) -> tuple[float, float]:
        """Images per second of extraction, and of training in the fastest epoch after the first."""
        classifier, phase = self.classifier()
        backbone = classifier.backbone
        position = backbone.cut(phase.cut).position
        stored = np.random.default_rng(0).integers(0, 256, (64, self.size, self.size, 3), np.uint8)
        pixels: Any = SimpleNamespace(key="random", spec=backbone.facts.pixels, read=lambda row: stored[row % 64])
        request = ViewRequest(pixels, np.arange(self.images), 1, PRESETS["light"], seed=0, first_view=1)
        frozen: FrozenPart = FrozenPart(backbone, CPU, self.engine)  # type: ignore[arg-type]
        # Engines are built before the clock starts.
        frozen.runner([position]).run(torch.from_numpy(stored[:8]))
        process.barrier()
        started = time.perf_counter()
        features = extract(request, frozen, [position], FeatureCache(place, "float16"), lambda *_: None, process)
        extraction = self.images / (time.perf_counter() - started)
        targets = torch.arange(self.images) % CLASSES
        train = CachedSource.of(features[position], targets, CPU, 0)
        val = CachedSource.of(features[position].part(0, VALIDATED), targets[:VALIDATED], CPU, 0)
        settings = FitSettings(0, "fp32", "accuracy", None, place / "checkpoints", VALIDATED)
        callbacks = FitCallbacks(lambda *_: None, lambda _: None)
        progress = fit(
            FitContext(classifier, [phase], settings, callbacks, process), lambda _: PhaseSources(train, val)
        )
        return extraction, self.images / min(record.seconds for record in progress.records[1:])


def measure(job: Job, rounds: int, process: Process, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The rates of each round: alone, together, and each by itself at the same time."""
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "together": [], "unconnected": []}
    for number in range(rounds):
        process.from_main(partial(measure_into, found["alone"], job, folder / f"alone-{number}"))
        process.barrier()
        found["together"].append(job.rates(process, folder / f"together-{number}"))
        process.barrier()
        found["unconnected"].append(job.rates(ALONE, folder / f"unconnected-{number}-{process.rank}"))
        process.barrier()
    return found


def measure_into(rates: list[tuple[float, float]], job: Job, place: Path) -> str:
    rates.append(job.rates(ALONE, place))
    return ""


def show(job: Job, found: dict[str, list[tuple[float, float]]], say: Callable[[str], None] = print) -> None:
    say(f"{job.case}, {job.images} images of {job.size} px, {job.engine}, processes of one thread")
    for index, work in enumerate(("extraction", "training above the cut")):
        alone, together, unconnected = (
            statistics.median(rates[index] for rates in found[name]) for name in ("alone", "together", "unconnected")
        )
        spread = [each[index] / (2 * one[index]) for one, each in zip(found["alone"], found["together"], strict=True)]
        say(f"{work}: 1 process {alone:.1f}/s, 2 processes {together:.1f}/s, 2 unconnected {2 * unconnected:.1f}/s")
        rounds = f"{min(spread):.0%} to {max(spread):.0%} by round"
        allowed = f"{together / unconnected / 2:.0%} of what the machine allows"
        say(f"    efficiency {together / alone / 2:.0%} ({rounds}), {allowed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="mobilenetv2_100:stages:3:64", help="network, cut, batch size")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--engine", default="openvino-fp32")
    parser.add_argument("--folder", type=Path, help="for the features, kept by the caller")
    given = parser.parse_args()
    if not launched():
        with TemporaryDirectory() as folder:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            command = [*torchrun, __file__, *sys.argv[1:], "--folder", folder]
            environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, "OMP_NUM_THREADS": "1"}
            raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
    keep_freed_memory()
    job = Job(given.case, given.images, given.size, given.epochs, given.engine)
    with joined() as process:
        use_own_part(process, "cpu")
        torch.set_num_threads(1)
        found = measure(job, given.rounds, process, given.folder)
        if process.is_main:
            show(job, found)


if __name__ == "__main__":
    main()
