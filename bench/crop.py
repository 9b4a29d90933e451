"""How surely a few hundred images tell whether elongated ones are better squashed than cropped.

    python -m bench.crop waste-{seed}.csv insects-{seed}.csv --seeds 5 --set weights=net.safetensors

`{seed}` in a path is replaced by each seed. For each split a linear head on all stages is trained on all training
images, squashed and as the network crops them. What squashing gains on the test images is compared with what
cross-validation on the plan's part of the sample says: with folds drawn once, four times over, and in the mean of the
draws that the plan takes. Prints gains in points of balanced accuracy with their standard errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thaw.cli.parsing import parsed_settings
from thaw.data.dataset import Dataset
from thaw.data.prepare import Prepared
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import pooled_features
from thaw.formats import points
from thaw.planning.crop import DRAWS, SETTING
from thaw.planning.image_size import part_of
from thaw.progress import NullReporter
from thaw.recipe import Engine, Recipe, Task
from thaw.selection.estimates import Folding
from thaw.selection.heads import HeadSetting
from thaw.selection.sample import Sample, draw_sample
from thaw.selection.scores import Gain
from thaw.selection.tester import Contender, Tester
from thaw.trial.planning import prepare

ENGINE: Engine = "openvino-fp32"
SINGLE = 4
"""Draws that are shown one by one."""


@dataclass(frozen=True)
class Features:
    """Of all stages (N, W) of every image, and how many of them belong to each stage."""

    values: np.ndarray
    widths: tuple[int, ...]

    def contender(self, name: str, rows: np.ndarray) -> Contender:
        """A head on those of some images."""
        return Contender.of(name, self.values[rows], self.widths, HeadSetting("all", "none"))


def main() -> None:
    """Compare each split of each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="CSV")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    recipe = Recipe().with_settings(parsed_settings(arguments.set))
    print("| split | on test images | in one draw of the folds | in the mean of the plan's draws | squashed |")
    print("| --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as scratch:
        for pattern in arguments.tables:
            for table in dict.fromkeys(Path(pattern.replace("{seed}", str(seed))) for seed in range(arguments.seeds)):
                print(row_of(table, recipe, Path(scratch)), flush=True)


def row_of(table: Path, recipe: Recipe, scratch: Path) -> str:
    """The gains of squashing the images of a table."""
    dataset = Dataset.open(table)
    prepared, cropped = _features(dataset, recipe, scratch)
    _, squashed = _features(dataset, recipe.with_settings({SETTING: "squash"}), scratch)
    train, test = prepared.manifest.indices("train"), prepared.manifest.indices("test")
    rows, tested = np.r_[train, test], np.r_[np.full(len(train), -1), np.zeros(len(test), int)]
    true = _gain(Sample(rows, prepared.manifest.targets()[rows], np.arange(len(rows))), [tested], cropped, squashed)
    sample = draw_sample(prepared.manifest, prepared.duplicates, recipe.seed)
    part = sample.part(part_of(sample, recipe.seed))
    draws = [folds for seed in range(max(SINGLE, DRAWS)) if (folds := part.folds(seed)) is not None]
    single = ", ".join(_text(_gain(part, [draw], cropped, squashed)) for draw in draws[:SINGLE])
    found = _gain(part, draws[:DRAWS], cropped, squashed)
    return f"| {table.stem} | {_text(true)} | {single} | {_text(found)} | {'yes' if found.value > 0 else 'no'} |"


def _features(dataset: Dataset, recipe: Recipe, scratch: Path) -> tuple[Prepared, Features]:
    """The images with their splits, and the features of every image."""
    prepared, backbone = prepare(dataset, recipe, None, NullReporter())
    backbone.use_features(backbone.widest_features)
    frozen = FrozenPart(backbone, torch.device("cpu"), ENGINE, backbone.facts.pixels.size)
    rows, cache = np.arange(len(prepared.manifest)), FeatureCache(scratch, "float16")
    values = pooled_features(prepared.pixels, rows, frozen, 0, cache, lambda *_: None)
    return prepared, Features(values, tuple(backbone.feature_groups))


def _gain(sample: Sample, foldings: Sequence[np.ndarray], cropped: Features, squashed: Features) -> Gain:
    """What squashing gains for a head on all features, tested in each fold of a sample."""
    divisions = tuple(Folding(folds, sample.units) for folds in foldings)
    task: Task = "binary" if sample.classes == 2 else "multiclass"
    contenders = [cropped.contender("cropped", sample.rows), squashed.contender("squashed", sample.rows)]
    tester = Tester(sample.targets, sample.classes, task, "balanced_accuracy", divisions)
    return tester.compare(SETTING, contenders).gain(1, 0)


def _text(gain: Gain) -> str:
    return f"{points(gain.value)} ± {points(gain.standard_error).removeprefix('+')}"


if __name__ == "__main__":
    main()
