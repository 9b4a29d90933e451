"""Another decision and other limits of review for a trained classifier, from its predictions; nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import Decision
from thaw.classifier.review import ReviewPolicy
from thaw.evaluation.records import Records
from thaw.evaluation.review import refit_review_policy
from thaw.evaluation.thresholds import ChosenDecision, check_requirements, choose_decision, decided
from thaw.recipe import DecisionSettings

LIMITS = ("coverage", "in_distribution")
"""Settings of what is flagged for review."""


@dataclass(frozen=True)
class Decided:
    """What settings make of a classifier.

    Attributes:
        decision: From probabilities to labels.
        review_policy: What is flagged for review; `None` for a classifier without one.
        summary: The requirements behind it, for display.
        unmet: One sentence for each requirement that validation cannot meet.
    """

    decision: Decision
    review_policy: ReviewPolicy | None
    summary: str
    unmet: tuple[str, ...] = ()


def decide(classifier: Classifier, settings: DecisionSettings, val: Records) -> Decided:
    """Choose decision and limits of review on validation; the classifier keeps whatever the settings do not name.

    Args:
        classifier: A trained classifier, which is not changed.
        settings: Requirements or costs; coverage and in_distribution count where they are set.
        val: Its predictions on validation.

    Raises:
        RecipeError: As `check_requirements` does.
    """
    check_requirements(settings, classifier.classes)
    chosen = ChosenDecision(classifier.decision)
    if settings.recall or settings.precision or settings.costs:
        chosen = choose_decision(settings, classifier.classes, val.scored)
    policy = classifier.review_policy
    if policy:
        policy = refit_review_policy(policy, decided(chosen.decision, val.scored), val.distance, settings)
    limits = [f"{name} {getattr(settings, name):g}" for name in LIMITS if name in settings.model_fields_set]
    return Decided(chosen.decision, policy, "; ".join(filter(None, (chosen.decision.reason, *limits))), chosen.unmet)
