"""Decision thresholds from requirements: a target recall, a target precision, or costs of confusions.

They are chosen on validation and reported on test: validation meets a requirement by construction, so only the test
set, with its interval, shows whether it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from thaw import formats
from thaw.classifier.decision import Decision, cost_matrix
from thaw.errors import RecipeError
from thaw.metrics import Estimate, Scored, rates_of_classes
from thaw.recipe import DecisionSettings, Task

WEIGHTS = "each class counts as in training"
"""The reason of a decision that class weights have moved to, and how it begins."""

_COSTS = "lowest expected cost: "
REQUIREMENTS = ("recall", "precision", "costs")
"""Settings of the decision."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ThresholdResult:
    """What the threshold of one class gives on a set of images; a rate is `None` where it is undefined."""

    class_name: str
    threshold: float
    recall: Estimate | None
    false_positive_rate: Estimate | None
    precision: Estimate | None


@dataclass(frozen=True)
class ChosenDecision:
    """The decision that meets the requirements, and one sentence for each that validation cannot meet."""

    decision: Decision
    unmet: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Requirement:
    """A target recall or precision of a class."""

    kind: Literal["recall", "precision"]
    name: str
    index: int
    target: float

    def text(self) -> str:
        return f"{self.kind} of {self.name} at least {self.target:g}"

    def is_met(self, decision: Decision, scored: Scored) -> bool:
        """Whether the labels that a decision predicts meet it, with all thresholds at work."""
        predicted = decision.labels(scored.probabilities, scored.task)[:, self.index]
        truth = scored.truth[:, self.index]
        of, found = (truth, predicted) if self.kind == "recall" else (predicted, truth)
        return bool(of.any()) and float(found[of].mean()) >= self.target - _ROUNDING

    def threshold(self, decision: Decision, scored: Scored) -> float | None:
        """The threshold that meets it on the images that no threshold of a decision decides; `None` if none does."""
        probabilities, truth = scored.probabilities[:, self.index], scored.truth[:, self.index]
        is_open = np.ones(len(truth), bool)
        if scored.task != "multilabel":
            for index, threshold in decision.thresholds:
                is_open &= scored.probabilities[:, index] < threshold
        if self.kind == "precision":
            return threshold_for_precision(probabilities[is_open], truth[is_open], self.target)
        # Images of the class that another threshold has taken are missed.
        missed = truth.sum() / max(int(truth[is_open].sum()), 1)
        target = self.target * missed
        return threshold_for_recall(probabilities[is_open], truth[is_open], target) if target <= 1 + _ROUNDING else None


def check_requirements(settings: DecisionSettings, classes: Sequence[str], task: Task) -> None:
    """Raise `RecipeError` for a requirement or a cost of an unknown class, and for costs where labels are several."""
    named = {
        "recall": settings.recall,
        "precision": settings.precision,
        "costs": [name for true, costs in settings.costs.items() for name in (true, *costs)],
    }
    for setting, names in named.items():
        for name in names:
            if name not in classes:
                raise RecipeError(
                    f"decision.{setting}: there is no class {name!r}; "
                    f"the classes are {formats.listed(classes, formats.MANY)}"
                )
    if settings.costs and task == "multilabel":
        raise RecipeError("decision.costs: an image has several labels; require a recall or a precision of each")


def choose_decision(
    settings: DecisionSettings, classes: Sequence[str], scored: Scored, earlier: Decision | None = None
) -> ChosenDecision:
    """Choose the decision that meets the requirements on scored validation images.

    Requirements are met one after the other, those on recall first. One that cannot be met without giving up another
    before it is not met.

    Args:
        settings: Requirements that `check_requirements` accepts.
        classes: The names of the classes.
        scored: Validation images.
        earlier: The decision so far. What it required is replaced by what the settings require, if targets or costs are
            set, also to none; class weights stay, but for costs that the settings name.
    """
    requirements, decision = _requirements(settings, classes), _kept(earlier or Decision(), settings, classes)
    reasons = [decision.reason] if decision.reason else []
    if settings.costs:
        decision, reasons = replace(decision, costs=_costs(settings, classes)), [_describe_costs(settings)]
    met, unmet = list[_Requirement](), list[str]()
    for requirement in requirements:
        found = decision
        # One threshold of a class has to serve both its recall and its precision.
        if all(each.index != requirement.index for each in met):
            threshold = requirement.threshold(decision, scored)
            if threshold is not None:
                others = (pair for pair in decision.thresholds if pair[0] != requirement.index)
                found = replace(decision, thresholds=(*others, (requirement.index, threshold)))
        if all(each.is_met(found, scored) for each in (*met, requirement)):
            decision = found
            met.append(requirement)
        else:
            unmet.append(_why_unmet(requirement, scored, met))
    reasons += [requirement.text() for requirement in met]
    return ChosenDecision(replace(decision, reason="; ".join(reasons)), tuple(unmet))


def required_classes(decision: Decision, classes: Sequence[str]) -> tuple[int, ...]:
    """The classes that a decision has a target recall or precision of, by their indices."""
    # Not split at "; ", which a name may contain.
    reasons = f"; {decision.reason}"
    return tuple(
        index
        for index, name in enumerate(classes)
        if any(f"; {kind} of {name} at least " in reasons for kind in ("recall", "precision"))
    )


def _requirements(settings: DecisionSettings, classes: Sequence[str]) -> list[_Requirement]:
    names = list(classes)
    return [
        *(_Requirement("recall", name, names.index(name), target) for name, target in settings.recall.items()),
        *(_Requirement("precision", name, names.index(name), target) for name, target in settings.precision.items()),
    ]


def _kept(earlier: Decision, settings: DecisionSettings, classes: Sequence[str]) -> Decision:
    """What settings leave of a decision: the class weights of training, or all of it where they set no requirement."""
    if settings.model_fields_set.isdisjoint(REQUIREMENTS):
        return earlier
    weights = [text for text in earlier.reason.split("; ") if text.startswith(WEIGHTS)]
    if not weights:
        return Decision()
    thresholds = earlier.weight_thresholds
    if not thresholds:
        # A decision of an earlier release, which has those of labels without a requirement only.
        required = required_classes(earlier, classes)
        thresholds = tuple(pair for pair in earlier.thresholds if pair[0] not in required)
    return replace(earlier, thresholds=thresholds, reason="; ".join(weights))


def _why_unmet(requirement: _Requirement, scored: Scored, met: Sequence[_Requirement]) -> str:
    images = formats.count(int(scored.truth[:, requirement.index].sum()), "image")
    others = f" and keeps {' and '.join(each.text() for each in met)}" if met else ""
    return (
        f"decision.{requirement.kind}: no threshold reaches a {requirement.kind} of {requirement.target:g} for "
        f"{requirement.name}{others} on validation, which has {images} of it"
    )


def threshold_for_recall(probabilities: np.ndarray, truth: np.ndarray, target: float) -> float | None:
    """The highest threshold that reaches the target recall; `None` without images of the class.

    It lies half way between the lowest probability that must be accepted and the next lower one of any image (0 if
    there is none), which leaves a margin for new images of the class.

    Args:
        probabilities: (N,) of the class.
        truth: (N,) bool.
        target: Recall to reach, 0..1.
    """
    positives = np.sort(probabilities[truth])[::-1]
    if not len(positives):
        return None
    needed = max(int(np.ceil(target * len(positives) - 1e-9)), 1)
    lowest_accepted = float(positives[needed - 1])
    below = probabilities[probabilities < lowest_accepted]
    return (lowest_accepted + float(below.max(initial=0.0))) / 2


def threshold_for_precision(probabilities: np.ndarray, truth: np.ndarray, target: float) -> float | None:
    """The lowest threshold that reaches the target precision; `None` where none does. Arguments as for recall."""
    order = np.argsort(-probabilities, kind="stable")
    true_positives = np.cumsum(truth[order])
    precision = true_positives / np.arange(1, len(order) + 1)
    last_of_tie = np.append(np.diff(probabilities[order]) != 0, True)
    reached = np.flatnonzero((precision >= target) & last_of_tie & (true_positives > 0))
    return float(probabilities[order][reached[-1]]) if len(reached) else None


def decided(decision: Decision, scored: Scored) -> Scored:
    """The same images with the labels that a decision predicts for their probabilities."""
    return replace(scored, predicted=decision.labels(scored.probabilities, scored.task))


def threshold_results(decision: Decision, classes: Sequence[str], scored: Scored) -> tuple[ThresholdResult, ...]:
    """What each threshold of a decision gives on scored images, whose own predicted labels are ignored."""
    rates = rates_of_classes(decided(decision, scored), [index for index, _ in decision.thresholds])
    return tuple(
        ThresholdResult(classes[index], threshold, of_class.recall, of_class.false_positive_rate, of_class.precision)
        for (index, threshold), of_class in zip(decision.thresholds, rates, strict=True)
    )


def _costs(settings: DecisionSettings, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Costs (C, C) of predicting the class of the column for that of the row: 0 if correct, 1 unless listed."""
    index_of = {name: index for index, name in enumerate(classes)}
    listed = [
        (index_of[true], index_of[predicted], cost)
        for true, row in settings.costs.items()
        for predicted, cost in row.items()
        if predicted != true
    ]
    return cost_matrix([1.0] * len(classes), listed)


def _describe_costs(settings: DecisionSettings) -> str:
    pairs = [f"{true}>{predicted}={cost:g}" for true, row in settings.costs.items() for predicted, cost in row.items()]
    return f"{_COSTS}{', '.join(pairs)}"
