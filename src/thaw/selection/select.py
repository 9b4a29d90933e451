"""The measurements of a plan: settings compared by cross-validated heads on cached features, cheap questions first.

What a person has cannot be looked up in a table: on images of other parts than those of training, augmentation moved
accuracy by six points in either direction, and a head on all stages gained between -1 and +8. Each question costs one
pass of a sample through the frozen network at most, and seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thaw.backbones.facts import Features
from thaw.data.augment import DEFAULT_PRESET, Augmentation
from thaw.recipe import ClassWeights
from thaw.selection.augmentations import AugmentationOption, by_strength, without_one_kind
from thaw.selection.budget import Budget
from thaw.selection.estimates import Estimates, Folding, deciding
from thaw.selection.heads import Basis, HeadSetting
from thaw.selection.logistic import Design
from thaw.selection.options import Question
from thaw.selection.tester import Contender, Tester

CLASS_WEIGHTS: tuple[ClassWeights, ...] = ("none", "sqrt", "balanced")
"""From simple to complex."""

_LEAST_AUGMENTATIONS = 2
"""How many are compared with none, as long as there is time."""


@dataclass(frozen=True)
class Answer:
    """What was measured for one setting: its value, the reason, and what that changes in the recipe, by key."""

    setting: str
    value: str
    reason: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class SampleViews:
    """Features of a sample.

    Attributes:
        plain: (N, W) float32, features of all stages of the plain view.
        of: Gives the features (N, W) of one view in an augmentation that changes something.
        widths: How many of the features belong to each stage.
        seconds: What one view of the whole sample takes.
    """

    plain: np.ndarray
    of: Callable[[Augmentation], np.ndarray]
    widths: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class OtherPreprocessing:
    """Another preprocessing: in words, what it changes in the recipe, and (M, W) features of some images with it."""

    name: str
    changes: dict[str, Any]
    features: np.ndarray


class Selection:
    """Asks one question after the other, each with the answers to those before it, until the time is used up."""

    def __init__(self, views: SampleViews, tester: Tester, foldings: tuple[Folding, ...], setting: HeadSetting) -> None:
        """Nothing is asked yet, and there is time for everything.

        Args:
            views: The features of the sample.
            tester: Fits and compares heads.
            foldings: How images are divided into folds: at random, and where there are groups across them.
            setting: The head before any question.
        """
        self._views, self._tester, self._foldings, self._budget = views, tester, foldings, Budget(math.inf)
        self._bases: dict[Features, Basis] = {}
        self._designs: dict[tuple[Features, str], Design] = {}
        self.setting = setting
        self.answers: list[Answer] = []

    def use(self, budget: Budget) -> None:
        """Let the questions from now on take no longer than this."""
        self._budget = budget

    @property
    def folds(self) -> int:
        """How many folds each head is fitted in, in all divisions that decide."""
        return sum(int(folding.numbers.max()) + 1 for folding in self._tester.deciding)

    def ask_features(self) -> None:
        """Whether the head takes the last stage or all of them: whichever is better, for they cost the same.

        What guessed groups cannot tell apart, random folds decide, which have less noise.
        """
        features: tuple[Features, ...] = ("last", "all")
        contenders = [Contender(each, self._design(each), self.setting.weights) for each in features]
        question = self._tester.compare("head.features", contenders)
        best = question.best()
        if len(self._tester.deciding) > 1 and not question.gain(best, 1 - best).exceeds_noise:
            question = self._tester.compare("head.features", contenders, self._foldings[:1])
            best = question.best()
        self._answer(question, best, {"head.features": features[best]})
        self.setting = replace(self.setting, features=features[best])

    def estimate(self) -> Estimates:
        """What to expect of images like these and of other groups; where they differ, the latter decides from here."""
        contender = Contender("", self._design(self.setting.features), self.setting.weights)
        correct = [self._tester.correct(contender, folding) for folding in self._foldings]
        scores = [self._tester.monitored(contender, folding) for folding in self._foldings]
        estimates = Estimates.of(self._foldings, correct, scores)
        self._tester.deciding = deciding(self._foldings, estimates.differ)
        return estimates

    def ask_class_weights(self) -> None:
        """None, the square roots, or balanced: the simplest within one standard error of the best."""
        design = self._design(self.setting.features)
        question = self._tester.compare("class_weights", [Contender(kind, design, kind) for kind in CLASS_WEIGHTS])
        chosen = question.simplest_good()
        self._answer(question, chosen, {"class_weights": CLASS_WEIGHTS[chosen]})
        self.setting = replace(self.setting, weights=CLASS_WEIGHTS[chosen])

    def ask_augmentation(self, unmeasured_seconds: float = 0.0) -> None:
        """Which augmentation the head is trained with, and which one thawed stages may be trained with.

        A stronger one is kept only if it gains more than one standard error over a milder one. Heads say little about
        what thawed stages gain, which learn from the pixels: where the head takes none, those keep the default, unless
        it hurts. Where the default hurts, each kind of transformation is left out in turn, since one of them may be to
        blame; where it does not even help, a stronger one is not tried.

        Args:
            unmeasured_seconds: What the default takes to train with, if it is not asked about. Asking takes place, in
                or out of the budget, where that is quicker than the default itself.
        """
        options = [AugmentationOption.of("none")]
        options += self._affordable([AugmentationOption.of(DEFAULT_PRESET)], unmeasured_seconds)
        if len(options) == 1:
            return
        options += self._affordable([AugmentationOption.of("light")])
        options, question = self._compare_augmentations(options)
        default = [option.name for option in options].index(DEFAULT_PRESET)
        if question.gain(default, 0).value > 0:
            options, question = self._compare_augmentations(
                [*options, *self._affordable([AugmentationOption.of("strong")])]
            )
        names = [option.name for option in options]
        if question.gain(0, names.index(DEFAULT_PRESET)).exceeds_noise:
            options, question = self._compare_augmentations([*options, *self._affordable(without_one_kind())])
            names = [option.name for option in options]
        chosen = question.simplest_good()
        harmless = [index for index in range(1, len(options)) if not question.gain(0, index).exceeds_noise]
        thawed = chosen
        if chosen == 0 and harmless:
            thawed = next((index for index in harmless if names[index] == DEFAULT_PRESET), harmless[-1])
        changes = {"augment": dict(options[chosen].settings), "thawed": dict(options[thawed].settings)}
        self._answer(question, chosen, changes)

    @property
    def augmentation_seconds(self) -> float:
        """What `ask_augmentation` should take at least."""
        return _LEAST_AUGMENTATIONS * (self._views.seconds + self._tester.seconds_for(2))

    def ask_preprocessing(
        self, setting: str, trained_at: str, others: Sequence[OtherPreprocessing], chosen: np.ndarray
    ) -> bool:
        """Whether another preprocessing gains more than one standard error over what the network was trained with.

        Args:
            setting: What is asked about.
            trained_at: What the network was trained with, in words.
            others: The other ones, and the features of the chosen images with them.
            chosen: (M,) int, positions in the sample.
        """
        named = [OtherPreprocessing(trained_at, {}, self._views.plain[chosen]), *others]
        contenders = [Contender.of(each.name, each.features, self._views.widths, self.setting) for each in named]
        question = self._tester.part(chosen).compare(setting, contenders)
        best = question.better_than(0)
        self._answer(question, best, named[best].changes)
        return best > 0

    def allows_images(self, images: int, pixels_ratio: float, start_seconds: float) -> bool:
        """Whether there is time for one more preprocessing of some images with this many times the pixels."""
        fraction = images / len(self._views.plain)
        extraction = self._views.seconds * fraction * pixels_ratio
        return self._budget.allows(start_seconds + extraction + fraction * self._tester.seconds_for(1))

    def _affordable(
        self, options: Sequence[AugmentationOption], spared_seconds: float = 0.0
    ) -> list[AugmentationOption]:
        """The options that there is time for, the first ones first, with their views extracted.

        There is also time for what spares more than it takes.
        """
        affordable = []
        for option in options:
            seconds = self._views.seconds + self._tester.seconds_for(2)
            if seconds > spared_seconds and not self._budget.allows(seconds):
                break
            affordable.append(option)
            # Compared at once, so that the time of the next one is known.
            self._compare_augmentations([option])
        return affordable

    def _compare_augmentations(
        self, options: Sequence[AugmentationOption]
    ) -> tuple[list[AugmentationOption], Question]:
        """The options from mild to strong, and their comparison."""
        ordered, weights = by_strength(options), self.setting.weights
        contenders = [
            Contender(option.name, self._design(self.setting.features, option), weights) for option in ordered
        ]
        return ordered, self._tester.compare("augment.preset", contenders)

    def _design(self, features: Features, option: AugmentationOption | None = None) -> Design:
        """The plain view, and one view in an augmentation that changes anything, for a head on some features."""
        key = (features, option.name if option else "none")
        if key not in self._designs:
            if features not in self._bases:
                self._bases[features] = Basis.of(self._views.plain, self._views.widths, features)
            views = [self._views.plain]
            if option and option.augmentation.changes:
                views.append(self._views.of(option.augmentation))
            self._designs[key] = self._bases[features].design(views)
        return self._designs[key]

    def _answer(self, question: Question, chosen: int, changes: dict[str, Any]) -> None:
        value = question.options[chosen].value
        self.answers.append(Answer(question.setting, value, question.reason(chosen), changes))
