"""Thresholds from what a person wants: a recall, a precision, or costs; chosen on validation, reported on test.

A threshold that is the best of a few images is too good to be true: validation reaches what was wanted by its making,
so what counts is what the test set shows, with its interval.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import Decision
from thaw.errors import RecipeError
from thaw.evaluation.metrics import Estimate, Scored
from thaw.recipe import DecideSettings

_COST = re.compile(r"\s*(.+?)\s*>\s*(.+?)\s*=\s*([0-9.eE+-]+)\s*")


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


def check_requirements(settings: DecideSettings, classes: Sequence[str]) -> None:
    """Raise `RecipeError` for a wish about a class that is not there, or one that cannot be read."""
    if settings.costs:
        _costs(settings.costs, classes)
    for kind, text in _requirements(settings):
        _shares(text, kind, classes)


def decide(settings: DecideSettings, classes: Sequence[str], scored: Scored) -> DecisionResult:
    """The decision that the settings ask for, chosen on validation; raises `RecipeError` as `check_requirements` does."""
    if settings.costs:
        costs = _costs(settings.costs, classes)
        return DecisionResult(Decision(costs=costs, reason=f"lowest expected cost: {settings.costs}"))
    thresholds, reasons, unmet = [], [], []
    for kind, text in _requirements(settings):
        for name, wanted in _shares(text, kind, classes):
            index = list(classes).index(name)
            pick = threshold_for_recall if kind == "recall" else threshold_for_precision
            threshold = pick(scored.probabilities[:, index], scored.truth[:, index], wanted)
            if threshold is None:
                unmet.append(
                    f"decide.{kind}: no threshold gives {name} a {kind} of {wanted:g} on validation, which has "
                    f"{int(scored.truth[:, index].sum())} images of it; {name} is decided as without the wish"
                )
            else:
                thresholds.append((index, threshold))
                reasons.append(f"{kind} of {name} at least {wanted:g}")
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


def _requirements(settings: DecideSettings) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in (("recall", settings.recall), ("precision", settings.precision)) if text]


def _shares(text: str, kind: str, classes: Sequence[str]) -> list[tuple[str, float]]:
    found = []
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        name = name.strip()
        if name not in classes:
            raise RecipeError(f"decide.{kind}: there is no class {name!r}; there are {', '.join(classes)}")
        found.append((name, float(value)))
    return found


def _costs(text: str, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """A matrix with 1 for every confusion that is not named and 0 for right answers."""
    costs = [[float(row != column) for column in range(len(classes))] for row in range(len(classes))]
    for part in text.split(","):
        match = _COST.fullmatch(part)
        if match is None:
            raise RecipeError(f"decide.costs: {part!r}: write TRUE>PREDICTED=COST, such as crack>ok=50")
        for name in match.group(1, 2):
            if name not in classes:
                raise RecipeError(f"decide.costs: there is no class {name!r}; there are {', '.join(classes)}")
        costs[list(classes).index(match.group(1))][list(classes).index(match.group(2))] = float(match.group(3))
    return tuple(tuple(row) for row in costs)
