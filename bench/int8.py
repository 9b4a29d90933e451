"""A frozen part in int8 against the same in float: images per second, and the accuracy of a head on its features.

    python -m bench.int8 elpv-0.csv xsdd-0.csv --backbone mobilenetv2_100 --weights model.safetensors

Prints, for each table with train and test splits, the accuracy on the test images of a linear head on either's features
and their speeds, measured in turn in the engine that the probe chooses for each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.backbones.int8 import quantise
from thaw.data.dataset import Dataset
from thaw.data.prepare import Prepared
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart, Runner
from thaw.features.pooled import plain_sample, pooled_features
from thaw.features.probe import ExtractionJob, choose_engine
from thaw.inspection.linear_probe import fit_head
from thaw.progress import NullReporter
from thaw.quantisation import CALIBRATION_IMAGES
from thaw.recipe import Recipe
from thaw.trial.planning import prepare

BATCH, PROBED, ROUNDS = 10, 32, 5
MANY = 10_000
"""Images for which every engine is worth a probe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--backbone", default="starter")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--size", type=int)
    parser.add_argument("--features", default="last", choices=("last", "all"))
    arguments = parser.parse_args()
    settings: dict[str, Any] = {
        "backbone": arguments.backbone,
        "weights": arguments.weights,
        "head.features": arguments.features,
    }
    if arguments.size:
        settings["preprocessing.image_size"] = arguments.size
    recipe = Recipe().with_settings(settings)
    drops = []
    print("data             fp32     int8    drop   fp32/s  int8/s  ratio  engines")
    for table in arguments.tables:
        drops.append(_compare(table, recipe))
    print(f"mean drop {np.mean(drops):.2f} points, standard error {np.std(drops) / max(1, len(drops) - 1) ** 0.5:.2f}")


def _compare(table: Path, recipe: Recipe) -> float:
    prepared, floats = prepare(Dataset.open(table), recipe, None, NullReporter())
    integers = build(recipe)
    sample = plain_sample(prepared.pixels, prepared.rows("train").rows, CALIBRATION_IMAGES)
    started = time.perf_counter()
    quantise(integers, sample.split(BATCH))
    seconds = time.perf_counter() - started
    with TemporaryDirectory() as scratch:
        parts = [_fastest(backbone, sample, Path(scratch)) for backbone in (floats, integers)]
        rates = _rates(parts, sample[:PROBED])
        accuracies = [_accuracy(part, prepared, Path(scratch)) for part in parts]
    ratio = statistics.median(of_int8 / of_float for of_float, of_int8 in rates)
    drop = 100 * (accuracies[0] - accuracies[1])
    speeds = " ".join(f"{statistics.median(rate):7.0f}" for rate in zip(*rates, strict=True))
    engines = " and ".join(part.engine for part in parts)
    print(
        f"{table.stem:14} {100 * accuracies[0]:6.2f} % {100 * accuracies[1]:6.2f} % {drop:5.2f} {speeds} {ratio:6.2f}  "
        f"{engines}, quantised in {seconds:.0f} s",
        flush=True,
    )
    return drop


def _fastest(backbone: Backbone, sample: torch.Tensor, scratch: Path) -> FrozenPart:
    device, head = torch.device("cpu"), [backbone.head_position]
    job = ExtractionJob(backbone, device, head, sample[:16], MANY)
    chosen = choose_engine(job, "auto", scratch)
    print(f"  {chosen.reason}")
    return FrozenPart(backbone, device, chosen.engine, backbone.facts.pixels.size)


def _rates(parts: Sequence[FrozenPart], sample: torch.Tensor) -> list[list[float]]:
    """Images per second of each part, in rounds in which each runs once."""
    runners = [part.runner([part.backbone.head_position]) for part in parts]
    for runner in runners:
        runner.run(sample)
    return [[_rate(runner, sample) for runner in runners] for _ in range(ROUNDS)]


def _rate(runner: Runner, sample: torch.Tensor) -> float:
    started = time.perf_counter()
    runner.run(sample)
    return len(sample) / (time.perf_counter() - started)


def _accuracy(part: FrozenPart, prepared: Prepared, scratch: Path) -> float:
    train, test = prepared.rows("train"), prepared.rows("test")
    values = [
        pooled_features(prepared.pixels, split.rows, part, 0, FeatureCache(scratch, "float16"), lambda *_: None)
        for split in (train, test)
    ]
    return float(fit_head(values[0], train.targets).score(values[1], test.targets))


if __name__ == "__main__":
    main()
