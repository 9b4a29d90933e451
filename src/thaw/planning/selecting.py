"""What the plan measures before it resolves a recipe: the questions of `thaw.selection` on this run's own images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thaw.cache import recall, remember
from thaw.data.augment import Augmentation
from thaw.formats import count, duration, listed
from thaw.inspection.linear_probe import TOO_FEW, untested_sentence
from thaw.planning.across import across_groups
from thaw.planning.crop import Crop, ask_crop
from thaw.planning.image_size import ask_image_size
from thaw.planning.measured_key import MEASURED, key_of
from thaw.planning.measurements import Choice, Measurements
from thaw.planning.sample_features import SampleFeatures
from thaw.planning.selected import Selected
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.selection.budget import Budget
from thaw.selection.estimates import Estimates, Folding
from thaw.selection.head_times import HeadTimes
from thaw.selection.heads import HeadSetting
from thaw.selection.sample import MANY_CLASSES
from thaw.selection.select import SampleViews, Selection
from thaw.selection.tester import Tester
from thaw.training.loss import IMBALANCE

MIN_IMAGES = 40
"""Training images below which nothing can be told apart by cross-validation."""

_MORE_TIME = 1.5
"""How many times the time of a remembered measurement there must be to ask what it left out."""


class Questions:
    """Every question that a recipe leaves open, asked on the features of a sample: first what plain views answer."""

    def __init__(
        self,
        recipe: Recipe,
        measured: Measurements,
        features: SampleFeatures,
        plain_seconds: float,
        spent: float = 0.0,
    ) -> None:
        """Nothing is asked yet.

        Args:
            recipe: What it sets is not asked.
            measured: Device, engine and their speed.
            features: Of a sample of the training images; no others are used.
            plain_seconds: How long questions about plain views may take, whose heads of many classes take minutes.
            spent: What finding the crop has taken of the time for all questions.
        """
        self._recipe, self._measured, self._features = recipe, measured, features
        self.plain_seconds, self._spent = plain_seconds, spent
        self._is_possible = recipe.measure.seconds != 0 and len(features.sample.rows) >= MIN_IMAGES

    def crop(self) -> Crop | None:
        """How elongated images are cropped, to be asked before all others; `None` where that is not open."""
        if not self._is_possible:
            return None
        with self._widest_features():
            return ask_crop(self._recipe, self._measured, self._features, self._head_times, self.plain_seconds)

    def of_plain_views(self) -> Selected | None:
        """What plain views answer, which is all about the head; `None` where nothing is measured."""
        if self._is_possible and (remembered := self._remembered()):
            return remembered.of_plain_views
        return self._plain.answered if self._plain else None

    def spent(self, seconds: float) -> float | None:
        """What of the time for all questions those about plain views have taken; `None` where no others are left."""
        if not self._is_possible or self._remembered(seconds) or self._plain is None:
            return None
        return self._plain.seconds

    @property
    def seconds_ahead(self) -> float:
        """What comparing augmentations should take, where nothing is remembered."""
        if not self._recipe.augment.is_open or self._plain is None:
            return 0.0
        return self._plain.selection.augmentation_seconds

    def all(self, seconds: float, unmeasured_seconds: float) -> Selected:
        """Ask all of them, cheap ones first.

        Args:
            seconds: How long they may take.
            unmeasured_seconds: What training with the default augmentation takes, if it is not asked about.
        """
        if self._is_possible and (remembered := self._remembered(seconds)):
            return remembered
        if self._plain is None:
            return Selected({}, self._why_unmeasured)
        selection, budget = self._plain.selection, Budget(seconds - self._plain.seconds)
        selection.use(budget)
        with self._widest_features():
            _ask_of_other_views(selection, self._recipe, self._features, unmeasured_seconds)
        selected = _answered(selection, self._plain.estimates, self._plain.limits)
        refused = budget.refused or self._plain.refused
        content = {**selected.to_json(), "seconds": seconds, "refused": refused}
        remember(self._features.cache.folder, MEASURED, self._key, content)
        return selected

    @cached_property
    def _plain(self) -> _Plain | None:
        """The questions about plain views, asked once; `None` where nothing can be told apart."""
        sample, prepared, measured = self._features.sample, self._features.prepared, self._measured
        started, folds = time.perf_counter(), sample.folds() if self._is_possible else None
        if folds is None or self._too_slow:
            return None
        times = self._head_times
        with self._widest_features():
            widths, plain = self._features.frozen.backbone.feature_groups, self._features.of(Augmentation())
            if self._is_whole_training_set:
                # Training reads the same plain views: they take no time that it would not take.
                started = time.perf_counter()
            if self._features.whole or self._is_whole_training_set:
                times.budget.started = time.perf_counter()
            foldings = [Folding(folds, sample.units)]
            if (across := across_groups(prepared, sample, plain, widths)) and times.allow(
                f"folds across {across.grouping}",
                times.seconds(int(across.numbers.max()) + 1, sum(widths), sum(widths)),
            ):
                foldings.append(across)
            classes, recipe = len(prepared.manifest.classes), self._recipe
            bar = self._features.bar if classes > MANY_CLASSES else NullReporter().bar
            seconds_per_view = len(sample.rows) / measured.engine.images_per_second
            selection = Selection(
                SampleViews(plain, self._features.of, widths, seconds_per_view),
                Tester(sample.targets, classes, measured.task, recipe.monitor, (foldings[0],), bar),
                tuple(foldings),
                HeadSetting(recipe.head.taken, "none" if recipe.class_weights == "auto" else recipe.class_weights),
            )
            estimates = _ask_of_plain_views(selection, recipe, measured, self._features, times)
        limits = self._limits(folds, times.left_out)
        answered = _answered(selection, estimates, limits)
        seconds = self._spent + time.perf_counter() - started
        return _Plain(selection, estimates, answered, limits, seconds, bool(times.left_out))

    @property
    def _is_whole_training_set(self) -> bool:
        """Whether training reads the same plain views as the measurements."""
        is_whole = len(self._features.sample.rows) == self._measured.images.train
        return self._features.frozen.all_serve_last and is_whole

    @cached_property
    def _head_times(self) -> HeadTimes:
        """What heads on the features of plain views take."""
        width = self._features.frozen.backbone.facts.width
        return HeadTimes.of(self._features.sample, width, self._measured.task, self.plain_seconds)

    @cached_property
    def _too_slow(self) -> str:
        """Why there is no time for a single head; empty where there is."""
        sample, backbone, times = self._features.sample, self._features.frozen.backbone, self._head_times
        with backbone.taking(self._recipe.head.taken):
            seconds = times.seconds(sample.most_folds, backbone.feature_width)
        if not (self._features.whole or self._is_whole_training_set):
            seconds += len(sample.rows) / self._measured.engine.images_per_second
        if times.budget.allows(seconds):
            return ""
        classes = count(sample.classes, "class", "classes")
        return f"a head for {classes} would take {duration(seconds)} of {duration(self.plain_seconds)}"

    @property
    def _why_unmeasured(self) -> tuple[Choice, ...]:
        """The reason why nothing can be told apart; none where nothing is to be measured."""
        sample, images = self._features.sample, len(self._features.sample.rows)
        if self._recipe.measure.seconds == 0:
            return ()
        why = f"there are {count(images, 'training image')}, fewer than {MIN_IMAGES}"
        if self._is_possible:
            why = TOO_FEW if sample.folds() is None else self._too_slow
        return (Choice("measure", "nothing", f"not measured, because {why}"),)

    def _limits(self, folds: np.ndarray, left_out: Sequence[str]) -> tuple[Choice, ...]:
        """What the folds (N,) int say nothing about and what there was no time for, as a reason of the plan."""
        manifest, sample, sentences = self._features.prepared.manifest, self._features.sample, []
        if few := sample.untested:
            names = manifest.classes
            if manifest.task == "multilabel":
                names = ("no label", *(f"{name} as the rarest label" for name in names))
            sentences.append(untested_sentence({names[label]: images for label, images in few.items()}))
        if sample.why_few_folds:
            sentences.append(sample.why_few_folds)
        if left_out:
            sentences.append(f"no time for {listed(left_out, len(left_out))}")
        return (Choice("measure", count(int(folds.max()) + 1, "fold"), "; ".join(sentences)),) if sentences else ()

    def _remembered(self, seconds: float = 0.0) -> Selected | None:
        """What was measured before, unless questions were left out for want of time and there is more now."""
        values = recall(self._features.cache.folder, MEASURED, self._key)
        try:
            if not values or (values["refused"] and seconds > _MORE_TIME * values["seconds"]):
                return None
            return Selected.from_json(values)
        except (KeyError, TypeError):
            return None

    @cached_property
    def _key(self) -> str:
        """Hash of everything that the answers depend on but the time for them."""
        with self._widest_features():
            return key_of(self._recipe, self._measured, self._features)

    def _widest_features(self) -> AbstractContextManager[None]:
        backbone = self._features.frozen.backbone
        return backbone.taking(backbone.widest_features)


@dataclass(frozen=True)
class _Plain:
    """What plain views have answered, what that says nothing about, the seconds that it took, what had no time."""

    selection: Selection
    estimates: Estimates
    answered: Selected
    limits: tuple[Choice, ...]
    seconds: float
    refused: bool


def _answered(selection: Selection, estimates: Estimates, limits: tuple[Choice, ...]) -> Selected:
    """The answers so far, and what they say nothing about."""
    changes = {key: value for answer in selection.answers for key, value in answer.changes.items()}
    choices = tuple(Choice(answer.setting, answer.value, answer.reason) for answer in selection.answers)
    return Selected(changes, (*choices, *limits), estimates)


def _ask_of_plain_views(
    selection: Selection, recipe: Recipe, measured: Measurements, features: SampleFeatures, times: HeadTimes
) -> Estimates:
    """Ask about the head; across groups from the start where these do worse than images at random.

    What heads of many classes leave no time for is left out.
    """
    backbone = features.frozen.backbone
    last, widest = backbone.facts.width, sum(backbone.feature_groups)
    is_open = recipe.head.is_open and backbone.has_stages
    is_open = is_open and times.allow("head.features", times.seconds(selection.folds, last, widest))
    if is_open:
        selection.ask_features()
    estimates = selection.estimate()
    if is_open and estimates.differ:
        selection.answers.clear()
        selection.ask_features()
        estimates = selection.estimate()
    width = widest if selection.setting.features == "all" else last
    if (
        recipe.class_weights == "auto"
        and measured.imbalance > IMBALANCE
        and times.allow("class_weights", times.seconds(selection.folds, width, width))
    ):
        selection.ask_class_weights()
    return estimates


def _ask_of_other_views(
    selection: Selection, recipe: Recipe, features: SampleFeatures, unmeasured_seconds: float
) -> None:
    """Ask what needs augmented views, or images of another size."""
    if recipe.augment.is_open:
        selection.ask_augmentation(unmeasured_seconds)
    if recipe.preprocessing.image_size is None:
        ask_image_size(selection, recipe, features)
