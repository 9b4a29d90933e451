"""Evaluates the starter: random start, starter and teacher with the same data, recipe and seeds.

    python -m pretraining.prove WORK name=images/ other=table.csv --teacher TEACHER --starter STARTER
    python -m pretraining.prove WORK name=images/ --teacher TEACHER --starter STARTER --training both --seeds 1

A data set is a folder of class folders or a table with the columns path and label; it must not contain images that the
starter was distilled on. `few` trains on 10 images per class, `full` on three quarters; the rest is the test set.
`--training linear` fits logistic regression on standardised features of whole images; `both` runs both phases of Thaw's
default recipe. Results are stored in WORK/proof.jsonl and not computed again for the same weights.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.timm_backbone import build
from thaw.checksums import sha256_of
from thaw.data.dataset import Dataset
from thaw.data.decode import decode
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import DecodeSettings, Recipe
from thaw.run_folder import RunFolder

BACKBONES = ("random", "starter", "teacher")
FEW = 10
_BATCH = 64
# Fixed in advance and the same for all backbones and data sets, so that none is favoured; not tuned.
_INVERSE_REGULARISATION = 0.01

_digest = cache(sha256_of)


@dataclass(frozen=True)
class Cell:
    """One result: accuracy in percent on the test images. weights: as `Weights.identity` gives them."""

    data: str
    images: str
    training: str
    backbone: str
    seed: int
    accuracy: float
    weights: str


@dataclass(frozen=True)
class Weights:
    """The sources of the three backbones."""

    teacher_name: str
    teacher: Path
    starter_name: str
    starter: Path

    def recipe(self, kind: str) -> tuple[str, str]:
        """Backbone and weights as in a recipe."""
        if kind == "teacher":
            return self.teacher_name, str(self.teacher)
        return self.starter_name, "random" if kind == "random" else str(self.starter)

    def identity(self, kind: str) -> str:
        """The network and what its weights file contains."""
        name, weights = self.recipe(kind)
        return f"{name} {weights if kind == 'random' else _digest(Path(weights))}"


@dataclass(frozen=True)
class LabelledFiles:
    """Images of one data set."""

    files: tuple[Path, ...]
    labels: np.ndarray

    @classmethod
    def open(cls, place: Path) -> LabelledFiles:
        """Read a folder or a table."""
        manifest = Dataset.open(place).manifest
        files = tuple(manifest.file(row) for row in range(len(manifest)))
        return cls(files, np.array([labels[0] for labels in manifest.column("labels")]))

    def split(self, images: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Stratified training and test rows."""
        rows = np.arange(len(self.files))
        if images == "full":
            train, test = train_test_split(rows, test_size=0.25, random_state=seed, stratify=self.labels)
            return train, test
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(rows[self.labels == label])[:FEW] for label in np.unique(self.labels)]
        train = np.concatenate(chosen)
        return train, np.setdiff1d(rows, train)


def features_of(backbone: Backbone, files: tuple[Path, ...]) -> np.ndarray:
    """Pooled features (N, width) of whole images."""
    normalise, spec, parts = Normalise(backbone.facts.mean, backbone.facts.std), backbone.facts.pixels, []
    with torch.inference_mode():
        for start in range(0, len(files), _BATCH):
            read = (decode(file.read_bytes(), DecodeSettings(), spec).pixels for file in files[start : start + _BATCH])
            pixels = torch.from_numpy(np.stack([spec.crop(image) for image in read]))
            parts.append(backbone(normalise(pixels)).numpy())
    return np.concatenate(parts)


def linear(features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Test accuracy in percent of a linear head."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=300))
    head.fit(features[train], labels[train])
    return 100 * float(head.score(features[test], labels[test]))


def both_phases(
    data: LabelledFiles, train: np.ndarray, test: np.ndarray, backbone: tuple[str, str], seed: int, folder: Path
) -> float:
    """Test accuracy in percent after both phases of the default recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    val = train[
        train_test_split(np.arange(len(train)), test_size=0.2, random_state=seed, stratify=data.labels[train])[1]
    ]
    splits = {**dict.fromkeys(train, "train"), **dict.fromkeys(val, "val"), **dict.fromkeys(test, "test")}
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = [(str(data.files[row]), data.labels[row], split) for row, split in splits.items()]
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    recipe = Recipe(backbone=backbone[0], weights=backbone[1], seed=seed)
    finetune(Dataset.open(folder / "table.csv", "multiclass"), recipe, folder / "runs", reporter=NullReporter())
    accuracy = RunFolder.earlier(folder / "runs")[0].read_evaluation().evaluations["test"].overall["accuracy"]
    assert accuracy is not None
    return 100 * accuracy.value


def prove(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Compute all missing results."""
    weights = weights_of(arguments)
    known = {
        (cell.data, cell.images, cell.training, cell.backbone, cell.seed) for cell in read(arguments.work, weights)
    }
    for name, _, place in (pair.partition("=") for pair in arguments.sets):
        data = LabelledFiles.open(Path(place))
        for kind in arguments.backbones:
            wanted = [
                (images, seed)
                for images in arguments.images
                for seed in range(arguments.seeds)
                if (name, images, arguments.training, kind, seed) not in known
            ]
            if not wanted:
                continue
            backbone = weights.recipe(kind)
            features = features_of(build(*backbone), data.files) if arguments.training == "linear" else np.empty(0)
            for images, seed in wanted:
                train, test = data.split(images, seed)
                if arguments.training == "linear":
                    accuracy = linear(features, data.labels, train, test)
                else:
                    folder = arguments.work / f"{name}-{images}-{kind}-{seed}"
                    accuracy = both_phases(data, train, test, backbone, seed, folder)
                yield Cell(name, images, arguments.training, kind, seed, accuracy, weights.identity(kind))


def weights_of(arguments: argparse.Namespace) -> Weights:
    """The three backbones of the command line."""
    return Weights(arguments.teacher_name, arguments.teacher, arguments.starter_name, arguments.starter)


def read(work: Path, weights: Weights) -> list[Cell]:
    """The stored results of these weights."""
    file = work / "proof.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    cells = [Cell(**json.loads(line)) for line in lines]
    return [cell for cell in cells if cell.weights == weights.identity(cell.backbone)]


def table(cells: list[Cell]) -> str:
    """Markdown table of means and standard deviations over seeds, and how much of the gap the starter closes."""
    lines = [
        "| set | images | training | seeds | random start | starter | teacher | gap closed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for data, images, training in dict.fromkeys((cell.data, cell.images, cell.training) for cell in cells):
        found = {
            kind: np.array(
                [
                    cell.accuracy
                    for cell in cells
                    if (cell.data, cell.images, cell.training, cell.backbone) == (data, images, training, kind)
                ]
            )
            for kind in BACKBONES
        }
        if not all(len(values) for values in found.values()):
            continue
        low, mid, high = (float(values.mean()) for values in found.values())
        shown = " | ".join(f"{values.mean():.1f} ± {values.std():.1f}" for values in found.values())
        closed = f"{100 * (mid - low) / (high - low):.0f} %" if high > low else "-"
        seeds = min(len(values) for values in found.values())
        lines.append(f"| {data} | {images} | {training} | {seeds} | {shown} | {closed} |")
    return "\n".join(lines)


def parse(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("sets", nargs="*", metavar="NAME=PLACE")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--teacher-name", default="mobilenetv2_100")
    parser.add_argument("--starter", type=Path, required=True, help="weights written by `pretraining.distil export`")
    parser.add_argument("--starter-name", default="mobilenetv2_100")
    parser.add_argument("--training", choices=["linear", "both"], default="linear")
    parser.add_argument("--images", nargs="+", choices=["few", "full"], default=["few", "full"])
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Compute missing results, then print the whole table."""
    arguments = parse(words)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for cell in prove(arguments):
        print(cell, flush=True)
        with (arguments.work / "proof.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(cell)) + "\n")
    print(table(read(arguments.work, weights_of(arguments))))


if __name__ == "__main__":
    main()
