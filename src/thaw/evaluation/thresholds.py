"""Thresholds from what a person wants: a recall, a precision, or costs; chosen on validation, reported on test.

A threshold that is the best of a few images is too good to be true: validation reaches what was wanted by its making,
so what counts is what the test set shows, with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import Decision
from thaw.errors import RecipeError
from thaw.evaluation.metrics import Estimate, Scored
from thaw.recipe import DecisionSettings


@dataclass(frozen=True)
class ThresholdResult:
    """What a decision does on some images: of one class, the share found, false alarms, and precision."""

    class_name: str
    threshold: float
    recall: Estimate | None
    false_positive_rate: Estimate | None
    precision: Estimate | None


@dataclass(frozen=True)
class DecisionResult:
    """The decision that came of some wishes, and a sentence for each wish that validation cannot fulfil."""

    decision: Decision
    unmet: tuple[str, ...] = ()


def check_requirements(settings: DecisionSettings, classes: Sequence[str]) -> None:
    """Raise `RecipeError` for a requirement or a cost of a class that does not exist."""
    named = {
        "decision.recall": settings.recall,
        "decision.precision": settings.precision,
        "decision.costs": {name for true, costs in settings.costs.items() for name in (true, *costs)},
    }
    for setting, names in named.items():
        for name in names:
            if name not in classes:
                raise RecipeError(f"{setting}: there is no class {name!r}; there are {', '.join(classes)}")


def choose_decision(settings: DecisionSettings, classes: Sequence[str], scored: Scored) -> DecisionResult:
    """The decision that meets the requirements on validation; raises `RecipeError` as `check_requirements` does."""
    check_requirements(settings, classes)
    if settings.costs:
        return DecisionResult(Decision(costs=_cost_matrix(settings, classes), reason=_describe_costs(settings)))
    thresholds, reasons, unmet = [], [], []
    for kind, required in (("recall", settings.recall), ("precision", settings.precision)):
        for name, target in required.items():
            index = list(classes).index(name)
            pick = threshold_for_recall if kind == "recall" else threshold_for_precision
            threshold = pick(scored.probabilities[:, index], scored.truth[:, index], target)
            if threshold is None:
                unmet.append(
                    f"decision.{kind}: no threshold gives {name} a {kind} of {target:g} on validation, which has "
                    f"{int(scored.truth[:, index].sum())} images of it; the requirement is ignored"
                )
            else:
                thresholds.append((index, threshold))
                reasons.append(f"{kind} of {name} at least {target:g}")
    return DecisionResult(Decision(tuple(thresholds), reason="; ".join(reasons)), tuple(unmet))


def threshold_for_recall(probabilities: np.ndarray, truth: np.ndarray, wanted: float) -> float | None:
    """The highest threshold that finds the wanted share of the true images; `None` without any.

    It lies half way to the next lower probability, or at half of the lowest one, so that an image just like the last
    that must be found is found too.
    """
    found = np.sort(probabilities[truth])[::-1]
    if not len(found):
        return None
    needed = max(int(np.ceil(wanted * len(found) - 1e-9)), 1)
    border = float(found[needed - 1])
    below = probabilities[probabilities < border]
    return (border + float(below.max(initial=0.0))) / 2


def threshold_for_precision(probabilities: np.ndarray, truth: np.ndarray, wanted: float) -> float | None:
    """The lowest threshold above which the wanted share is right; `None` where there is no such one."""
    order = np.argsort(-probabilities, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.diff(probabilities[order]) != 0, True)
    good = np.flatnonzero((hits / np.arange(1, len(order) + 1) >= wanted) & last & (hits > 0))
    return float(probabilities[order][good[-1]]) if len(good) else None


def threshold_results(decision: Decision, classes: Sequence[str], scored: Scored) -> tuple[ThresholdResult, ...]:
    """What each threshold of a decision does on some images."""
    found = []
    labels = decision.labels(scored.probabilities, scored.task)
    for index, threshold in decision.thresholds:
        truth, called = scored.truth[:, index], labels[:, index]
        figures = scored.fraction(called, truth), scored.fraction(called, ~truth), scored.fraction(truth, called)
        found.append(ThresholdResult(classes[index], threshold, *figures))
    return tuple(found)


def _cost_matrix(settings: DecisionSettings, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """(C, C): 0 for a right answer, the cost of each misclassification that is listed, 1 for the others."""
    return tuple(
        tuple(
            float(settings.costs.get(true, {}).get(predicted, 1.0)) if true != predicted else 0.0
            for predicted in classes
        )
        for true in classes
    )


def _describe_costs(settings: DecisionSettings) -> str:
    pairs = [f"{true}>{predicted}={cost:g}" for true, row in settings.costs.items() for predicted, cost in row.items()]
    return f"lowest expected cost: {', '.join(pairs)}"
