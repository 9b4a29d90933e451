"""How many labels are needed, in the order of `thaw label`, at random, and by margin alone: annotators are simulated.

    python -m bench.labelling elpv.csv xsdd.csv trashnet.csv ants_bees.csv --out labelling.md

Each SET is a table with the columns path and label; `bench.elpv_csv` and `bench.folder_csv` write such tables. Features
of the bundled starter are extracted once per set. Per seed a quarter of the images, stratified by label, is the test
set, and the labels of the others are hidden until the annotator is asked for them: 10 at a time up to 100, 20 up to
300, then 50, or as many as `--round` says. After each round a linear head is fitted to all labels so far, and tested. A
curve has reached the target, 95 % of the accuracy of the head on all labels, where it first crosses it, between two
rounds by interpolation.

    queue      what `thaw label` chooses
    random     at random
    margin     the smallest margin of the head; the first round at random
    typical    as the queue, but never uncertain images
    uncertain  as the queue, but uncertain images from the second round on
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from thaw.backbones import build
from thaw.cache import cache_folder
from thaw.cores import worker_count
from thaw.data.dataset import Dataset
from thaw.inspection.linear_probe import one_thread
from thaw.labelling.candidates import not_seen
from thaw.labelling.head import fit_head, margins, standardised
from thaw.labelling.label import Extraction
from thaw.labelling.order import order_images, typical_images
from thaw.labelling.outlook import MORE, look_ahead
from thaw.labelling.pool import UNLABELLED, Pool
from thaw.labelling.uncertainty import choose_uncertain
from thaw.progress import NullReporter
from thaw.recipe import Recipe

TARGET, TEST_FRACTION, IMAGE_SIZE = 0.95, 0.25, 128
SIZES = (*range(10, 101, 10), *range(120, 301, 20), *range(350, 3001, 50))
SHOWN, FORECAST_AT, MEASURED_AT_LEAST = (10, 30, 50, 100, 200), (50, 100, 200), 300


@dataclass(frozen=True)
class LabelledSet:
    """A set with all its labels: features (N, D), classes (N,), and pairs of near-duplicates."""

    name: str
    values: np.ndarray
    classes: np.ndarray
    pairs: list[tuple[int, int]]


@dataclass(frozen=True)
class Annotation:
    """A simulation: the images that are not for testing, in random order, and the features that heads are fitted to."""

    images: LabelledSet
    train: np.ndarray
    test: np.ndarray
    values: np.ndarray
    seed: int

    def accuracy(self, labelled: np.ndarray) -> float:
        """Accuracy on the test set of a head on the labels of some images."""
        classes = self.images.classes
        known = np.unique(classes[labelled])
        if len(known) < 2:
            return float((classes[self.test] == known[0]).mean())
        head = fit_head(self.values[labelled], classes[labelled])
        predicted = head.classes[head.probabilities(self.values[self.test]).argmax(axis=1)]
        return float((predicted == classes[self.test]).mean())

    def pool(self, labelled: np.ndarray) -> tuple[Pool, np.ndarray]:
        """What `thaw label` would choose among, and the image at each position."""
        waiting = not_seen(self.train.tolist(), labelled.tolist(), self.images.pairs)
        positions = np.array([*labelled.tolist(), *waiting], int)
        classes = np.full(len(positions), UNLABELLED)
        classes[: len(labelled)] = self.images.classes[labelled]
        return Pool(self.images.values[positions], classes, self.seed), positions


Choose = Callable[[Annotation, np.ndarray, int], np.ndarray]
"""Chooses a number of images to label next, given those that have a label."""


def random_images(annotation: Annotation, labelled: np.ndarray, number: int) -> np.ndarray:
    return annotation.train[~np.isin(annotation.train, labelled)][:number]


def smallest_margin(annotation: Annotation, labelled: np.ndarray, number: int) -> np.ndarray:
    classes = annotation.images.classes[labelled]
    if len(np.unique(classes)) < 2:
        return random_images(annotation, labelled, number)
    rest = annotation.train[~np.isin(annotation.train, labelled)]
    probabilities = fit_head(annotation.values[labelled], classes).probabilities(annotation.values[rest])
    return rest[np.argsort(margins(probabilities), kind="stable")[:number]]


def queued(annotation: Annotation, labelled: np.ndarray, number: int) -> np.ndarray:
    pool, positions = annotation.pool(labelled)
    return positions[[choice.position for choice in order_images(pool, number).choices]]


def only_typical(annotation: Annotation, labelled: np.ndarray, number: int) -> np.ndarray:
    pool, positions = annotation.pool(labelled)
    return positions[[choice.position for choice in typical_images(pool, min(number, len(pool.unlabelled)))]]


def soon_uncertain(annotation: Annotation, labelled: np.ndarray, number: int) -> np.ndarray:
    pool, positions = annotation.pool(labelled)
    if len(pool.present) < 2:
        return only_typical(annotation, labelled, number)
    values = standardised(pool.values)
    probabilities = fit_head(values[pool.labelled], pool.classes[pool.labelled]).probabilities(values)
    chosen = choose_uncertain(pool, probabilities, min(number, len(pool.unlabelled)))
    return positions[[choice.position for choice in chosen]]


STRATEGIES: dict[str, Choose] = {
    "queue": queued,
    "random": random_images,
    "margin": smallest_margin,
    "typical": only_typical,
    "uncertain": soon_uncertain,
}


@dataclass(frozen=True)
class Curve:
    """Accuracy against labels of one simulation, that of all labels, and forecast and true gains of 100 more."""

    accuracies: dict[int, float]
    full: float
    gains: list[tuple[int, float, float]]

    def needed(self) -> float:
        """Labels to the target; all that were measured where it is not reached."""
        target = TARGET * self.full
        points = list(self.accuracies.items())
        if points[0][1] >= target:
            return points[0][0]
        for (fewer, low), (more, high) in pairwise(points):
            if high >= target:
                return fewer + (more - fewer) * (target - low) / (high - low)
        return points[-1][0]


def read_set(table: Path) -> LabelledSet:
    """Decode a set and extract its features with the starter."""
    recipe = Recipe().with_settings({"backbone": "starter", "preprocessing.image_size": IMAGE_SIZE})
    manifest, backbone = Dataset.open(table).manifest, build(recipe)
    backbone.use_features("last")
    extraction = Extraction(recipe, backbone, cache_folder(), NullReporter().bar)
    pixels = extraction.decode(manifest)
    values = extraction.extract(pixels, np.arange(len(manifest)))
    pairs = [(pair.first, pair.second) for pair in pixels.duplicates(worker_count())]
    return LabelledSet(table.stem, values, manifest.targets(), pairs)


def simulate(images: LabelledSet, seed: int, name: str, sizes: Sequence[int] = SIZES) -> Curve:
    """Label one set in one order until the target is reached, and at least `MEASURED_AT_LEAST` images."""
    from sklearn.model_selection import train_test_split

    every = np.arange(len(images.classes))
    train, test = train_test_split(every, test_size=TEST_FRACTION, random_state=seed, stratify=images.classes)
    mean, deviation = images.values[train].mean(axis=0), images.values[train].std(axis=0)
    annotation = Annotation(images, train, test, (images.values - mean) / np.where(deviation > 0, deviation, 1), seed)
    full = annotation.accuracy(train)
    labelled, accuracies, forecasts = np.zeros(0, int), {}, {}
    for size in sizes:
        chosen = STRATEGIES[name](annotation, labelled, min(size, len(train)) - len(labelled))
        if not len(chosen):
            break
        labelled = np.concatenate([labelled, chosen])
        accuracies[len(labelled)] = annotation.accuracy(labelled)
        if len(labelled) in FORECAST_AT and name == "queue":
            pool, _ = annotation.pool(labelled)
            outlook = look_ahead(standardised(pool.values), pool)
            forecasts[len(labelled)] = outlook.gain if outlook else None
        if max(accuracies.values()) >= TARGET * full and len(labelled) >= MEASURED_AT_LEAST:
            break
    gains = [
        (size, forecast, accuracies[size + MORE] - accuracies[size])
        for size, forecast in forecasts.items()
        if forecast is not None and size + MORE in accuracies
    ]
    return Curve(accuracies, full, gains)


def draw(name: str, curves: dict[str, list[Curve]]) -> str:
    """The table of one set."""
    full = 100 * np.mean([curve.full for curve in curves["random"]])
    seeds = len(curves["random"])
    lines = [f"\n{name}: {full:.1f}% with all labels; mean and standard deviation over {seeds} seeds.\n"]
    header = ("order", "labels to the target", "of random", *(f"at {size}" for size in SHOWN))
    lines += [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    at_random = np.array([curve.needed() for curve in curves["random"]])
    for strategy, found in curves.items():
        needed = np.array([curve.needed() for curve in found])
        cells = [f"{needed.mean():.0f} ± {needed.std(ddof=1):.0f}", f"{needed.mean() / at_random.mean():.2f}"]
        for size in SHOWN:
            reached = [curve.accuracies[size] for curve in found if size in curve.accuracies]
            cells.append(f"{100 * np.mean(reached):.1f}%" if len(reached) == seeds else "-")
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    for size in FORECAST_AT:
        pairs = [
            (forecast, true) for curve in curves.get("queue", []) for at, forecast, true in curve.gains if at == size
        ]
        if pairs:
            forecast, true = 100 * np.mean(pairs, axis=0)
            error = 100 * np.mean([abs(one - other) for one, other in pairs])
            text = f"{MORE} more labels at {size}: forecast {forecast:+.1f} points, true {true:+.1f}"
            lines.append(f"\n{text}; mean absolute error {error:.1f}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.labelling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--round", type=int, help="labels that are asked for at a time")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    step = arguments.round
    text, sizes = "", range(step, SIZES[-1] + 1, step) if step else SIZES
    for table in arguments.sets:
        images, started = read_set(table), time.perf_counter()
        with one_thread():
            curves = {
                name: [simulate(images, seed, name, sizes) for seed in range(arguments.seeds)]
                for name in dict.fromkeys((*arguments.strategies, "random"))
            }
        print(f"{images.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        text += draw(images.name, curves)
        if arguments.out:
            arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
