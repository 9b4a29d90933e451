"""Decision thresholds from requirements: a target recall, a target precision, or costs of confusions.

They are chosen on validation and reported on test: validation meets a requirement by construction, so only the test
set, with its interval, shows whether it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw import formats
from thaw.classifier.decision import Decision
from thaw.errors import RecipeError
from thaw.metrics import Estimate, Scored, rates_of_class
from thaw.recipe import DecisionSettings


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


def check_requirements(settings: DecisionSettings, classes: Sequence[str]) -> None:
    """Raise `RecipeError` for a requirement or a cost of an unknown class."""
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


def choose_decision(settings: DecisionSettings, classes: Sequence[str], scored: Scored) -> ChosenDecision:
    """Choose the decision that meets the requirements on scored validation images.

    Raises:
        RecipeError: As `check_requirements` does.
    """
    check_requirements(settings, classes)
    if settings.costs:
        return ChosenDecision(Decision(costs=_cost_matrix(settings, classes), reason=_describe_costs(settings)))
    thresholds, reasons, unmet = [], [], []
    requirements = [
        *(("recall", threshold_for_recall, name, target) for name, target in settings.recall.items()),
        *(("precision", threshold_for_precision, name, target) for name, target in settings.precision.items()),
    ]
    for kind, choose, name, target in requirements:
        index = list(classes).index(name)
        threshold = choose(scored.probabilities[:, index], scored.truth[:, index], target)
        if threshold is None:
            images = formats.count(int(scored.truth[:, index].sum()), "image")
            unmet.append(
                f"decision.{kind}: no threshold reaches a {kind} of {target:g} for {name} on validation, which has "
                f"{images} of it"
            )
        else:
            thresholds.append((index, threshold))
            reasons.append(f"{kind} of {name} at least {target:g}")
    return ChosenDecision(Decision(tuple(thresholds), reason="; ".join(reasons)), tuple(unmet))


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
    labelled = decided(decision, scored)
    results = []
    for index, threshold in decision.thresholds:
        rates = rates_of_class(labelled, index)
        results.append(
            ThresholdResult(classes[index], threshold, rates.recall, rates.false_positive_rate, rates.precision)
        )
    return tuple(results)


def _cost_matrix(settings: DecisionSettings, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Costs (C, C) of predicting the class of the column for that of the row: 0 if correct, 1 unless listed."""
    return tuple(
        tuple(
            0.0 if predicted == true else float(settings.costs.get(true, {}).get(predicted, 1.0))
            for predicted in classes
        )
        for true in classes
    )


def _describe_costs(settings: DecisionSettings) -> str:
    pairs = [f"{true}>{predicted}={cost:g}" for true, row in settings.costs.items() for predicted, cost in row.items()]
    return f"lowest expected cost: {', '.join(pairs)}"
