"""Arguments and results of every peer. Standard library only, because it runs in the environment of each peer.

A peer gets the table of images, the weights and the epochs, and prints one JSON object as its last line: seconds of
each part and epoch, accuracies, peak memory, processor time, versions.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.versus.curve import Curve, seconds_since_birth
from bench.versus.jobs import BACKBONES, BackboneFacts
from bench.versus.memory import PeakMemory

SPLITS = ("train", "val", "test")
PARTS = ("start", "data", "features", "phase1", "phase2", "evaluation")
"""start: from the start of the process until the libraries are imported. data: table, model, weights, and decoding if
that is a separate step. features: feature extraction (Thaw). The phases include validation after each epoch."""


Phase = tuple[str, int, tuple[str, ...], float]
"""Name, epochs, names of the stages that are thawed, learning rate."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of the network, from the config.json next to the weights."""

    size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model_args: dict[str, object]


@dataclass
class Measurements:
    """The measurements of a peer.

    With a `curve`, which is there if test accuracy after each epoch is wanted, the parts contain the time of the tests,
    which the total does not.
    """

    curve: Curve | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    epoch_seconds: dict[str, list[float]] = field(default_factory=lambda: {"phase1": [], "phase2": []})
    val_accuracy: float = 0.0
    test_accuracy: float = 0.0
    notes: list[str] = field(default_factory=list)
    extra: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to one of `PARTS`."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def test_epoch(self, accuracy: Callable[[], float]) -> None:
        """Test the network as an epoch left it, if a curve is wanted."""
        if self.curve:
            self.curve.test(accuracy)

    def test(self, accuracy: Callable[[], float]) -> None:
        """Test the finished network."""
        self.test_accuracy = self.curve.test(accuracy) if self.curve else accuracy()


def begin(about: str | None, precisions: Sequence[str] = ("fp32",)) -> tuple[argparse.Namespace, Measurements]:
    """The arguments of a peer, and where its measurements go."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV with the columns path, label, split (train, val, test)")
    parser.add_argument("--backbone", choices=BACKBONES, required=True)
    parser.add_argument(
        "--weights", type=Path, required=True, help=".safetensors file of timm with its config.json in the same folder"
    )
    parser.add_argument("--epochs-head", type=int, default=10)
    parser.add_argument("--epochs-top", type=int, default=10, help="0 skips phase 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="maximum images per split, for trying things out")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that decode images")
    parser.add_argument("--precision", choices=precisions, default=precisions[0])
    parser.add_argument("--curve", action="store_true", help="test after each epoch, in time that is not counted")
    arguments = parser.parse_args()
    return arguments, Measurements(Curve() if arguments.curve else None)


def facts_of(arguments: argparse.Namespace) -> BackboneFacts:
    """The names of the backbone and its top in each library."""
    return BACKBONES[arguments.backbone]


def read_rows(table: Path, limit: int | None) -> tuple[dict[str, list[tuple[Path, int]]], list[str]]:
    """(file, class index) of each image by split, at most `limit` per split; and the classes in order."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = sorted({row["label"] for row in rows})
    splits: dict[str, list[tuple[Path, int]]] = {split: [] for split in SPLITS}
    for row in rows:
        splits[row["split"]].append((table.parent / row["path"], classes.index(row["label"])))
    if limit is not None:
        dice = random.Random(0)
        splits = {split: dice.sample(part, min(limit, len(part))) for split, part in splits.items()}
    return splits, classes


def read_preprocessing(weights: Path) -> Preprocessing:
    """Size, mean, std and model arguments of the weights."""
    config = json.loads(weights.with_name("config.json").read_text(encoding="utf-8"))
    given = config["pretrained_cfg"]
    return Preprocessing(
        size=given["input_size"][-1],
        crop_pct=given["crop_pct"],
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
        model_args=config.get("model_args", {}),
    )


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that are installed here."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def finish(outcome: Measurements, peak: PeakMemory, packages: Sequence[str], total: float | None = None) -> None:
    """Print the result as the last line; `total` defaults to the age of this process, less what is not counted."""
    curve = outcome.curve or Curve()
    if curve.points:
        points = [[round(seconds, 3), accuracy] for seconds, accuracy in curve.points]
        outcome.extra |= {"curve": points, "uncounted_seconds": round(curve.uncounted, 3)}
    result = {
        "seconds": {name: round(outcome.seconds.get(name, 0.0), 3) for name in PARTS},
        "total_seconds": round(seconds_since_birth() - curve.uncounted if total is None else total, 3),
        "epoch_seconds": {name: [round(value, 3) for value in each] for name, each in outcome.epoch_seconds.items()},
        "val_accuracy": outcome.val_accuracy,
        "test_accuracy": outcome.test_accuracy,
        "peak_rss_mb": round(peak.rss_mb),
        "peak_pss_mb": round(peak.pss_mb),
        "peak_anon_mb": round(peak.anon_mb),
        "cpu_seconds": round(peak.cpu_seconds, 1),
        "versions": versions(packages),
        "notes": outcome.notes,
        **outcome.extra,
    }
    print(json.dumps(result), flush=True)
