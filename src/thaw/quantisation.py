"""A pre-trained network in int8 as a weights file: calibrated on training images, and compared with the one in float.

The network in float and the one in int8 are timed in turn, and a linear head on each is cross-validated on the same
training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.backbones.default import check_named
from thaw.backbones.int8 import quantise
from thaw.backbones.weights import write_file
from thaw.cache import cache_folder
from thaw.data.dataset import Dataset
from thaw.data.prepare import Prepared
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, plain_sample, pooled_features
from thaw.features.probe import ExtractionJob, choose_engine
from thaw.formats import count, percent, points
from thaw.planning.backbone_choice import correct_in_folds
from thaw.progress import OnProgress, Reporter
from thaw.recipe import Recipe
from thaw.selection.sample import Sample, draw_sample
from thaw.selection.scores import Gain, compare
from thaw.trial.planning import prepare

CALIBRATION_IMAGES = 100
"""Training images that ranges are measured on."""

COMPARED_IMAGES = 500
"""Training images on which heads are cross-validated."""

_BATCH = 10
_MANY_IMAGES = 10_000
"""So many that every engine is worth a probe."""


@dataclass(frozen=True)
class Measured:
    """One of the two networks: images per second in its engine, and the images whose class it predicts, (N,) 0 or 1.

    correct: `None` where images have several labels each, or a class has too few of them.
    """

    engine: str
    images_per_second: float
    correct: np.ndarray | None


@dataclass(frozen=True)
class Quantised:
    """A network in int8, and how it compares with the same in float.

    Attributes:
        file: Its weights.
        calibrated: Training images that ranges were measured on.
        before: In float.
        after: In int8.
        gain: In accuracy, negative for a loss; `None` where it cannot be cross-validated.
    """

    file: Path
    calibrated: int
    before: Measured
    after: Measured
    gain: Gain | None

    @property
    def speedup(self) -> float:
        """How many times as many images per second."""
        return self.after.images_per_second / self.before.images_per_second

    def describe(self) -> str:
        """What it gains and costs, in one sentence."""
        before, after = self.before, self.after
        speed = (
            f"{after.images_per_second:.0f} images/s instead of {before.images_per_second:.0f} ({before.engine}), "
            f"{self.speedup:.1f}x"
        )
        if self.gain is None or before.correct is None or after.correct is None:
            return speed
        accuracies = f"{percent(float(after.correct.mean()))} instead of {percent(float(before.correct.mean()))}"
        noise = points(self.gain.standard_error).removeprefix("+")
        images = count(len(after.correct), "training image")
        return f"{speed}; a linear head reaches {accuracies} (standard error {noise} points, {images})"


def quantise_backbone(dataset: Dataset, recipe: Recipe, file: Path, reporter: Reporter) -> Quantised:
    """Write the network of a recipe in int8, calibrated on training images of a data set.

    Raises:
        BackboneError: The network is in int8 already, or has no convolutions of PyTorch.
        RecipeError: The recipe names no single network.
        WriteError: The file cannot be written.
    """
    check_named(recipe, "quantise")
    prepared, floats = prepare(dataset, recipe, None, reporter)
    integers = build(recipe)
    sample = plain_sample(prepared.pixels, prepared.rows("train").rows, CALIBRATION_IMAGES)
    quantise(integers, _shown(sample.split(_BATCH), reporter.bar("calibrate")))
    compared = draw_sample(prepared.manifest, prepared.duplicates, recipe.seed, COMPARED_IMAGES)
    folds = None if prepared.manifest.task == "multilabel" else compared.folds()
    before, after = (_measure(backbone, prepared, compared, folds, reporter) for backbone in (floats, integers))
    gain = None
    if before.correct is not None and after.correct is not None and folds is not None:
        gain = compare(after.correct, before.correct, compared.units[folds >= 0])
    notes = {"quantised_from": floats.facts.origin, "calibration_images": str(len(sample))}
    write_file(integers, file, notes=notes)
    return Quantised(file, len(sample), before, after, gain)


def _shown(batches: Sequence[Tensor], on_progress: OnProgress) -> Iterator[Tensor]:
    """The batches, with a progress bar."""
    for number, batch in enumerate(batches):
        on_progress(number, len(batches))
        yield batch
    on_progress(len(batches), len(batches))


def _measure(
    backbone: Backbone, prepared: Prepared, compared: Sample, folds: np.ndarray | None, reporter: Reporter
) -> Measured:
    """Time a network in its fastest engine on the CPU, and cross-validate a linear head on its features."""
    cpu, cache, head = torch.device("cpu"), cache_folder(), [backbone.head_position]
    pixels = plain_sample(prepared.pixels, compared.rows, PROBE_IMAGES)
    chosen = choose_engine(ExtractionJob(backbone, cpu, head, pixels, _MANY_IMAGES), "auto", cache)
    if folds is None:
        return Measured(chosen.engine, chosen.images_per_second, None)
    frozen = FrozenPart(backbone, cpu, chosen.engine)
    bar = reporter.bar(f"extract features in {'int8' if backbone.facts.int8 else 'float'}")
    values = pooled_features(prepared.pixels, compared.rows, frozen, 0, FeatureCache(cache, "float16"), bar)
    correct = correct_in_folds(values, backbone, backbone.features, compared, folds)
    return Measured(chosen.engine, chosen.images_per_second, correct)
