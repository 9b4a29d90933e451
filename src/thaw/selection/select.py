"""The measurements of a plan: settings compared by cross-validated heads on cached features, cheap questions first.

What a person has cannot be looked up in a table: on images of other parts than those of training, augmentation moved
accuracy by six points in either direction, and a head on all stages gained between -1 and +8. Each question costs one
pass of a sample through the frozen network at most, and seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thaw.data.augment import DEFAULT_PRESET, PRESETS, Augmentation
from thaw.formats import count, percent
from thaw.metrics import METRICS
from thaw.recipe import ClassWeights, Monitor, Task
from thaw.selection.augmentations import KINDS, AugmentationOption, by_strength
from thaw.selection.budget import Budget
from thaw.selection.estimates import Estimates, Folding, deciding
from thaw.selection.heads import HeadSetting, StageFeatures, predict_folds
from thaw.selection.options import Option, Question
from thaw.selection.sample import Sample
from thaw.selection.scores import image_scores


@dataclass(frozen=True)
class Answer:
    """What was measured for one setting: the values that it gives to settings of the recipe, and the reason."""

    setting: str
    value: str
    reason: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class Examined:
    """What all questions are about.

    Attributes:
        sample: The images.
        task, classes, monitor: Of the run; the monitored metric decides.
        imbalance: Size of the largest class divided by that of the smallest.
        features: Gives the features of all stages of one view of the sample, (N, D), in an augmentation.
        widths: How many of the D features belong to each stage.
        setting: The head before any question.
        seconds_per_view: What one view of the whole sample takes.
    """

    sample: Sample
    task: Task
    classes: int
    monitor: Monitor
    imbalance: float
    features: Callable[[Augmentation], np.ndarray]
    widths: tuple[int, ...]
    setting: HeadSetting
    seconds_per_view: float


class Selection:
    """Asks one question after the other, each with the answers to those before it, until the time is used up."""

    def __init__(self, examined: Examined, foldings: tuple[Folding, ...], budget: Budget) -> None:
        """The plain view of the sample is extracted here.

        Args:
            examined: The images and their features.
            foldings: How images are divided into folds: at random, and where there are groups across them.
            budget: How long all questions may take.
        """
        self._about, self._budget = examined, budget
        self._plain = examined.features(Augmentation())
        self._foldings = foldings
        self._deciding = deciding(foldings, False)
        self._views: dict[str, np.ndarray] = {}
        self.setting = examined.setting
        self.answers: list[Answer] = []

    def ask_features(self) -> None:
        """Whether the head takes the last stage or all of them: whichever is better, for they cost the same.

        What guessed groups cannot tell apart, random folds decide, which have less noise.
        """
        settings = [replace(self.setting, features=features) for features in ("last", "all")]
        options = [(each.features, each, self._plain_only()) for each in settings]
        question = self._question("head.features", options)
        best = question.best()
        if len(self._deciding) > 1 and not question.gain(best, 1 - best).exceeds_noise:
            question = self._question("head.features", options, self._foldings[:1])
            best = question.best()
        self._answer(question, best, {"head.features": settings[best].features})
        self.setting = settings[best]

    def estimate(self) -> Estimates:
        """What to expect of images like these and of other groups; where they differ, the latter decides from here."""
        scores = [self._accuracy(folding) for folding in self._foldings]
        estimates = Estimates.of(self._foldings, scores)
        self._deciding = deciding(self._foldings, estimates.differ)
        return estimates

    def ask_class_weights(self) -> None:
        """None, the square roots, or balanced: whichever gives the best monitored metric."""
        kinds: tuple[ClassWeights, ...] = ("none", "sqrt", "balanced")
        settings = [replace(self.setting, weights=kind) for kind in kinds]
        question = self._question("class_weights", [(each.weights, each, self._plain_only()) for each in settings])
        chosen = question.simplest_good()
        self._answer(question, chosen, {"class_weights": kinds[chosen]})
        self.setting = settings[chosen]

    def ask_augmentation(self) -> None:
        """Which augmentation the head is trained with, and which one thawed stages may be trained with.

        A stronger one is kept only if it gains more than one standard error over a milder one. Heads say little about
        what thawed stages gain, which learn from the pixels: those keep the default, unless it hurts. Where the default
        hurts, each kind of transformation is left out in turn, since one of them may be to blame.
        """
        options = [AugmentationOption.of("none")]
        options += self._affordable([AugmentationOption.of(preset) for preset in (DEFAULT_PRESET, "light", "strong")])
        if len(options) == 1:
            return
        options, question = self._compare(options)
        names = [option.name for option in options]
        if question.gain(0, names.index(DEFAULT_PRESET)).exceeds_noise:
            kinds = [kind for kind in KINDS if getattr(PRESETS[DEFAULT_PRESET], kind) != getattr(Augmentation(), kind)]
            others = self._affordable([AugmentationOption.without(kind) for kind in kinds])
            options, question = self._compare([*options, *others])
            names = [option.name for option in options]
        chosen = question.simplest_good()
        harmless = [index for index in range(1, len(options)) if not question.gain(0, index).exceeds_noise]
        thawed = chosen
        if chosen == 0 and harmless:
            thawed = next((index for index in harmless if names[index] == DEFAULT_PRESET), harmless[-1])
        changes = {"augment": dict(options[chosen].settings), "thawed": dict(options[thawed].settings)}
        self._answer(question, chosen, changes)

    def _affordable(self, options: list[AugmentationOption]) -> list[AugmentationOption]:
        """The options that there is time to extract a view for, the first ones first."""
        affordable = []
        for option in options:
            if not self._budget.allows(2 * self._about.seconds_per_view):
                break
            affordable.append(option)
            self._views.setdefault(option.name, self._about.features(option.augmentation))
        return affordable

    def _compare(self, options: list[AugmentationOption]) -> tuple[list[AugmentationOption], Question]:
        """The options from mild to strong, and their comparison."""
        ordered = by_strength(options)
        compared = []
        for option in ordered:
            views = (self._plain, self._views[option.name]) if option.augmentation.changes else (self._plain,)
            compared.append((option.name, self.setting, StageFeatures(views, self._about.widths)))
        return ordered, self._question("augment.preset", compared)

    def seconds_for(self, images: int) -> float:
        """What one view of some images of the sample takes."""
        return self._about.seconds_per_view * images / len(self._about.sample.rows)

    def ask_preprocessing(
        self,
        trained_at: str,
        others: list[tuple[str, StageFeatures]],
        changes: list[dict[str, Any]],
        chosen: np.ndarray,
    ) -> None:
        """Whether another preprocessing gains more than one standard error over what the network was trained with.

        Args:
            trained_at: What the network was trained with, in words.
            others: Each other preprocessing in words, and the features of the chosen images with it.
            changes: The settings of the recipe for the first and each other one.
            chosen: (M,) int, positions in the sample.
        """
        whole = self._about, self._deciding, self._plain
        self._about, self._plain = replace(self._about, sample=self._about.sample.part(chosen)), self._plain[chosen]
        self._deciding = tuple(
            replace(folding, numbers=folding.numbers[chosen], groups=folding.groups[chosen])
            for folding in self._deciding
        )
        views = [(trained_at, self.setting, self._plain_only())]
        views += [(name, self.setting, replace(features, widths=self._about.widths)) for name, features in others]
        question = self._question("preprocessing", views)
        self._about, self._deciding, self._plain = whole
        best = question.better_than(0)
        self._answer(question, best, changes[best])

    def _question(
        self,
        setting: str,
        options: Sequence[tuple[str, HeadSetting, StageFeatures]],
        foldings: tuple[Folding, ...] = (),
    ) -> Question:
        """Test every option on the same images: those that are in a fold of each division, by default the deciding."""
        about, metric, foldings = self._about, METRICS[self._about.monitor], foldings or self._deciding
        tested = np.all([folding.numbers >= 0 for folding in foldings], axis=0)
        targets = about.sample.targets[tested]
        found = []
        for value, head, features in options:
            predicted = [self._predict(features, head, folding)[tested] for folding in foldings]

            def scores(monitor: Monitor, predicted: list[np.ndarray] = predicted) -> np.ndarray:
                return np.mean([image_scores(each, targets, about.task, monitor) for each in predicted], axis=0)

            remark = "" if about.monitor == "accuracy" else f"accuracy {percent(float(scores('accuracy').mean()))}"
            found.append(Option(value, scores(about.monitor), remark))
        folds = " and ".join(folding.described for folding in foldings)
        how = f"cross-validated on {count(int(tested.sum()), 'image')} in {folds}"
        groups = foldings[-1].groups[tested]
        return Question(setting, metric.title, tuple(found), groups, how, metric.kind == "fraction")

    def _answer(self, question: Question, chosen: int, changes: dict[str, Any]) -> None:
        value = question.options[chosen].value
        self.answers.append(Answer(question.setting, value, question.reason(chosen), changes))

    def _predict(self, features: StageFeatures, head: HeadSetting, folding: Folding) -> np.ndarray:
        about = self._about
        return predict_folds(features, head, about.sample.targets, folding.numbers, about.classes, about.task)

    def _accuracy(self, folding: Folding) -> np.ndarray:
        """Whether each tested image is predicted correctly, 0 or 1."""
        tested = folding.numbers >= 0
        probabilities = self._predict(self._plain_only(), self.setting, folding)[tested]
        return image_scores(probabilities, self._about.sample.targets[tested], self._about.task, "accuracy")

    def _plain_only(self) -> StageFeatures:
        return StageFeatures((self._plain,), self._about.widths)
