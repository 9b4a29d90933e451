"""Tests heads on the folds of a sample, and compares them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from thaw.data.stratified import strata_of
from thaw.formats import count, percent
from thaw.metrics import METRICS
from thaw.progress import Bar, NullReporter
from thaw.recipe import ClassWeights, Monitor, Task
from thaw.selection.estimates import Folding
from thaw.selection.heads import Basis, HeadSetting, predict_folds
from thaw.selection.logistic import Design
from thaw.selection.options import Option, Question
from thaw.selection.scores import image_scores, within_classes


@dataclass(frozen=True)
class Contender:
    """One value of a setting, and the head that it gives."""

    value: str
    design: Design
    weights: ClassWeights

    @classmethod
    def of(cls, value: str, plain: np.ndarray, widths: Sequence[int], setting: HeadSetting) -> Contender:
        """The head of a setting on features (N, W) of all stages of plain views; widths: how many each stage has."""
        return cls(value, Basis.of(plain, widths, setting.features).design([plain]), setting.weights)


@dataclass
class Tester:
    """Fits heads in the folds of a sample.

    Attributes:
        targets, classes, task, monitor: Of the sample and the run.
        deciding: The divisions into folds by which options are compared.
        bar: Shows how far a head is fitted.
        seconds_per_row: What fitting the heads of one division took last, for each row of the design.
    """

    targets: np.ndarray
    classes: int
    task: Task
    monitor: Monitor
    deciding: tuple[Folding, ...]
    bar: Bar = NullReporter().bar
    seconds_per_row: float = 0.0
    _predicted: dict[tuple[int, ClassWeights, int], tuple[Design, Folding, np.ndarray]] = field(default_factory=dict)

    def part(self, chosen: np.ndarray) -> Tester:
        """The same for some of the images, at positions (M,)."""
        foldings = (
            replace(folding, numbers=folding.numbers[chosen], groups=folding.groups[chosen])
            for folding in self.deciding
        )
        return replace(self, targets=self.targets[chosen], deciding=tuple(foldings), _predicted={})

    def seconds_for(self, views: int) -> float:
        """What comparing one more option with this many views of every image should take."""
        return self.seconds_per_row * views * len(self.targets) * len(self.deciding)

    def compare(self, setting: str, contenders: Sequence[Contender], foldings: tuple[Folding, ...] = ()) -> Question:
        """Test every contender on the same images: those in a fold of each division, by default the deciding ones."""
        foldings, metric = foldings or self.deciding, METRICS[self.monitor]
        tested = np.all([folding.numbers >= 0 for folding in foldings], axis=0)
        options = tuple(self._option(contender, foldings, tested) for contender in contenders)
        times = Counter(folding.described for folding in foldings)
        folds = " and ".join(text if number == 1 else f"{text}, drawn {number} times" for text, number in times.items())
        how = f"cross-validated on {count(int(tested.sum()), 'image')} in {folds}"
        groups = foldings[-1].groups[tested]
        return Question(setting, metric.title, options, groups, how, metric.kind == "fraction")

    def correct(self, contender: Contender, folding: Folding) -> np.ndarray:
        """Whether each image in a fold is predicted correctly, 0 or 1."""
        tested = folding.numbers >= 0
        return image_scores(self._predict(contender, folding)[tested], self.targets[tested], self.task, "accuracy")

    def monitored(self, contender: Contender, folding: Folding) -> np.ndarray:
        """A score of each image in a fold: their mean is the monitored metric, and their spread that within classes.

        For metrics that are no fraction the same as `correct`.
        """
        if self.monitor == "accuracy" or METRICS[self.monitor].kind != "fraction":
            return self.correct(contender, folding)
        tested = folding.numbers >= 0
        targets = self.targets[tested]
        scores = image_scores(self._predict(contender, folding)[tested], targets, self.task, self.monitor)
        return scores.mean() + within_classes(scores, strata_of(targets))

    def _option(self, contender: Contender, foldings: tuple[Folding, ...], tested: np.ndarray) -> Option:
        predicted = [self._predict(contender, folding)[tested] for folding in foldings]

        def scores(monitor: Monitor) -> np.ndarray:
            targets = self.targets[tested]
            return np.mean([image_scores(each, targets, self.task, monitor) for each in predicted], axis=0)

        accuracy = "" if self.monitor == "accuracy" else f"accuracy {percent(float(scores('accuracy').mean()))}"
        return Option(contender.value, scores(self.monitor), accuracy)

    def _predict(self, contender: Contender, folding: Folding) -> np.ndarray:
        """Probabilities (N, C) by heads fitted without the fold of each image."""
        design, weights = contender.design, contender.weights
        key = (id(design), weights, id(folding))
        if key not in self._predicted:
            started = time.perf_counter()
            on_progress = self.bar("fit a head")
            found = predict_folds(design, weights, self.targets, folding.numbers, self.classes, self.task, on_progress)
            self.seconds_per_row = (time.perf_counter() - started) / len(design.matrix)
            # With the objects themselves, so that no other one can get their identity.
            self._predicted[key] = (design, folding, found)
        return self._predicted[key][2]
