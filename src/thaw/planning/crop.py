"""Whether elongated images are squashed, found out before anything else, which is then measured on the better views."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from thaw.backbones.contract import Backbone
from thaw.cache import recall, remember
from thaw.data.augment import Augmentation
from thaw.inspection.linear_probe import FOLDS
from thaw.planning.image_size import START_SECONDS, other_features, part_of
from thaw.planning.measured_key import MEASURED, key_of
from thaw.planning.measurements import Choice, Measurements
from thaw.planning.sample_features import SampleFeatures
from thaw.recipe import ClassWeights, Recipe
from thaw.selection.estimates import Folding
from thaw.selection.head_times import HeadTimes
from thaw.selection.heads import HeadSetting
from thaw.selection.tester import Contender, Tester

SETTING = "preprocessing.crop_mode"

ELONGATED = 1.25
"""Median ratio of the sides from which images count as elongated, so that a centre crop may miss the defect."""

DRAWS = 5
"""How often the folds are drawn: another draw moves the difference on 400 images by 1.5 points (docs/benchmark.md)."""


@dataclass(frozen=True)
class Crop:
    """How elongated images are cropped, with the reason, and the seconds that it took to find out."""

    choice: Choice
    seconds: float = 0.0

    @property
    def squashes(self) -> bool:
        """Whether the images are squashed, instead of cropped as those that the network was trained with."""
        return self.choice.value == "squash"


def ask_crop(
    recipe: Recipe, measured: Measurements, features: SampleFeatures, times: HeadTimes, seconds: float
) -> Crop | None:
    """Compare squashing elongated images with the crop that the network was trained with, on a part of the sample.

    A centre crop may miss the defect: of images of 4:3 and a crop of 0.875 it leaves two thirds of the width.

    Args:
        recipe: A crop that it sets is kept.
        measured: Task, engine and its speed.
        features: Those of all stages of plain views.
        times: What heads take.
        seconds: How long this may take.

    Returns:
        The better crop, for both cost the same; `None` where images are not elongated, the recipe or the network has
        said it, or there is no time.
    """
    trained_at = features.frozen.backbone.facts.pixels
    if recipe.preprocessing.crop_mode or trained_at.crop_mode == "squash" or not _are_elongated(features):
        return None
    key = f"crop {key_of(recipe, measured, features)}"
    if remembered := recall(features.cache.folder, MEASURED, key):
        return Crop(Choice(SETTING, remembered["value"], f"remembered from an earlier run: {remembered['reason']}"))
    started, chosen = time.perf_counter(), part_of(features.sample, recipe.seed)
    part = features.sample.part(chosen)
    width, draws = sum(features.frozen.backbone.feature_groups), DRAWS if part.most_folds == FOLDS else 1
    foldings = [Folding(folds, part.units) for seed in range(draws) if (folds := part.folds(seed)) is not None]
    extraction = 2 * len(chosen) / measured.engine.images_per_second
    if not foldings or START_SECONDS + extraction + times.seconds(part.most_folds, width, width) > seconds:
        return None
    views = {
        trained_at.crop_mode: replace(features, sample=part, whole=False).of(Augmentation()),
        "squash": other_features(features, recipe, {"crop_mode": "squash"}, chosen),
    }
    classes = len(features.prepared.manifest.classes)
    tester = Tester(part.targets, classes, measured.task, recipe.monitor, tuple(foldings))
    backbone = features.frozen.backbone
    widths, setting = backbone.feature_groups, _setting(recipe, backbone)
    question = tester.compare(SETTING, [Contender.of(*view, widths, setting) for view in views.items()])
    best = question.best()
    choice = Choice(SETTING, question.options[best].value, question.reason(best))
    remember(features.cache.folder, MEASURED, key, {"value": choice.value, "reason": choice.reason})
    return Crop(choice, time.perf_counter() - started)


def _are_elongated(features: SampleFeatures) -> bool:
    facts = features.prepared.pixels.facts
    sides = np.array([facts.column(name).to_numpy() for name in ("width", "height")])[:, features.sample.rows]
    return bool(np.median(sides.max(axis=0) / sides.min(axis=0)) > ELONGATED)


def _setting(recipe: Recipe, backbone: Backbone) -> HeadSetting:
    """The recipe's head, on all stages where that is open, before anything is measured."""
    is_open = recipe.head.is_open and backbone.has_stages
    weights: ClassWeights = "none" if recipe.class_weights == "auto" else recipe.class_weights
    return HeadSetting("all" if is_open else recipe.head.taken, weights)
