"""Throughput of `thaw predict`, from files to rows, compared with that of the inference engine alone.

    python bench/predicting.py IMAGES [--weights FILE] [--backbone NAME] [--engine NAME] [--count N] [--rounds N]

Four measurements alternate, and the medians of images per second are printed with their ratios: the engine alone on
pixels in memory; decoding alone; files to a table on disk, from the first image on, without the time to build and check
the engine; and the same in plain PyTorch, with an eighth of the images. On a machine whose cores do both, files to rows
cannot be faster than `decoding then engine`: a core either decodes or computes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.data.walk import Omitted, images_below
from thaw.device import keep_freed_memory
from thaw.features.engines import REFERENCE
from thaw.prediction.job import PredictJob, write_predictions
from thaw.prediction.predict import read_files
from thaw.prediction.predictor import BATCH, Predictor
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import DecodeSettings, Engine

CPU = torch.device("cpu")


def engine_alone(predictor: Predictor, pixels: np.ndarray, count: int) -> None:
    for start in range(0, count, BATCH):
        predictor.probabilities(pixels[: min(BATCH, count - start)])


def decoding_alone(classifier: Classifier, files: list[Path]) -> None:
    for _ in read_files(classifier, files, BATCH):
        pass


class ProgressTimes(NullReporter):
    """Records the times at which progress is reported."""

    def bar(self, title: str) -> OnProgress:
        self.times: list[float] = []
        return lambda done, total: self.times.append(time.perf_counter())


def files_to_rows(classifier: Classifier, files: list[Path], engine: Engine, folder: Path) -> float:
    reporter = ProgressTimes()
    write_predictions(
        classifier, "bench", PredictJob(tuple(files), folder / "rows.csv", engine=engine), folder, reporter
    )
    return reporter.times[-1] - reporter.times[0]


def seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(rate_of: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median images per second of each measurement; they alternate, and the first round is a warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in rate_of}
    for number in range(rounds + 1):
        for name, measured in rate_of.items():
            rate = measured()
            if number:
                rates[name].append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--engine", default="openvino-fp32")
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    backbone = build(arguments.backbone, arguments.weights)
    head = Head(backbone.facts.width, 2, (), 0.2, 0)
    classifier = Classifier(backbone, head, ("a", "b"), "multiclass", DecodeSettings())
    found = islice(images_below(arguments.images, Omitted()), arguments.count)
    files = [arguments.images / file for file in found]
    count, few, engine = len(files), files[: arguments.count // 8], arguments.engine
    pixels = next(iter(read_files(classifier, files, BATCH))).pixels
    predictor = Predictor(classifier, engine, CPU)
    with tempfile.TemporaryDirectory() as place:
        rate_of = {
            "engine alone": lambda: count / seconds(lambda: engine_alone(predictor, pixels, count)),
            "decoding alone": lambda: count / seconds(lambda: decoding_alone(classifier, files)),
            "files to rows": lambda: count / files_to_rows(classifier, files, engine, Path(place)),
            "plain PyTorch": lambda: len(few) / files_to_rows(classifier, few, REFERENCE, Path(place)),
        }
        rates = measure(rate_of, arguments.rounds)
    whole = rates["files to rows"]
    rates["decoding then engine"] = 1 / (1 / rates["engine alone"] + 1 / rates["decoding alone"])
    print(f"{arguments.backbone}, {engine}, {count} images, median of {arguments.rounds} rounds")
    for name, rate in rates.items():
        print(f"  {name:20} {rate:7.1f} images/s; ratio of files to rows {whole / rate:.2f}")


if __name__ == "__main__":
    main()
