"""What `thaw predict` makes of an engine: images a second from files to rows, beside the engine alone.

    python bench/predicting.py IMAGES [--weights FILE] [--backbone NAME] [--engine NAME ...] [--images N] [--rounds N]

For each engine three ways alternate, round after round, and medians are printed: the engine alone on pixels in memory;
decoding alone; and the whole way from files to a table on disk. On a machine whose cores do both, files to rows cannot
be faster than `both in turn`: a core decodes or computes. The last line is plain PyTorch without any of it, batch after
batch: decode, classify, decode.
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
from thaw.classifier.predict import read_files
from thaw.classifier.predictor import BATCH, Predictor
from thaw.data.layouts import images_under
from thaw.device import keep_freed_memory
from thaw.progress import Silent
from thaw.recipe import DecodeSettings
from thaw.report.predictions import Asked, write_predictions

CPU = torch.device("cpu")


def engine_alone(predictor: Predictor, pixels: np.ndarray, count: int) -> None:
    for start in range(0, count, BATCH):
        predictor.probabilities(pixels[: min(BATCH, count - start)])


def decoding_alone(classifier: Classifier, files: list[Path]) -> None:
    for _ in read_files(classifier, files, BATCH):
        pass


def files_to_rows(classifier: Classifier, files: list[Path], engine: str, folder: Path) -> None:
    asked = Asked(tuple(files), folder / "rows.csv", engine=engine)  # type: ignore[arg-type]
    write_predictions(classifier, "bench", asked, folder, Silent())


def one_after_the_other(classifier: Classifier, files: list[Path]) -> None:
    predictor = Predictor(classifier, "pytorch-fp32", CPU)
    for start in range(0, len(files), BATCH):
        (batch,) = read_files(classifier, files[start : start + BATCH], BATCH)
        predictor.probabilities(batch.pixels)


def seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; they alternate, and the first round only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            time_taken = seconds(way)
            if number:
                taken[name].append(time_taken)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--engine", nargs="+", default=["openvino-fp32", "openvino-bf16"])
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    backbone = build(arguments.backbone, arguments.weights)
    head = Head(backbone.facts.width, 2, (), 0.2, 0)
    classifier = Classifier(backbone, head, ("a", "b"), "multiclass", DecodeSettings())
    files = list(islice(images_under(arguments.images), arguments.count))
    pixels = next(iter(read_files(classifier, files, BATCH))).pixels
    with tempfile.TemporaryDirectory() as place:
        for engine in arguments.engine:
            predictor = Predictor(classifier, engine, CPU)
            ways = {
                "engine alone": lambda predictor=predictor: engine_alone(predictor, pixels, len(files)),
                "decoding alone": lambda: decoding_alone(classifier, files),
                "files to rows": lambda engine=engine: files_to_rows(classifier, files, engine, Path(place)),
            }
            show(engine, measure(ways, arguments.rounds), len(files))
        old = measure({"old": lambda: one_after_the_other(classifier, files)}, 1)["old"]
        print(f"plain PyTorch, one after the other: {len(files) / old:.0f} images/s")


def show(engine: str, taken: dict[str, float], count: int) -> None:
    both = taken["engine alone"] + taken["decoding alone"]
    print(f"{engine}: " + ", ".join(f"{name} {count / value:.0f} images/s" for name, value in taken.items()))
    print(
        f"  files to rows against the engine alone {taken['engine alone'] / taken['files to rows']:.2f}, "
        f"against both in turn ({count / both:.0f} images/s) {both / taken['files to rows']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
