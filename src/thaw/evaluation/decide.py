"""Another decision and other limits of review for a trained classifier, from its predictions; nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import Decision
from thaw.classifier.review import ReviewPolicy
from thaw.errors import RecipeError
from thaw.evaluation.evaluate import Evaluation, summarise
from thaw.evaluation.records import Records
from thaw.evaluation.review import LIMITS, refit_review_policy, unmet_limits
from thaw.evaluation.thresholds import check_requirements, choose_decision, decided
from thaw.recipe import DecisionSettings


@dataclass(frozen=True)
class Decided:
    """What settings make of a classifier.

    Attributes:
        decision: From probabilities to labels.
        review_policy: What is flagged for review; `None` for a classifier without one.
        summary: The requirements behind it, for display.
        unmet: One sentence for each requirement or limit that validation cannot meet.
    """

    decision: Decision
    review_policy: ReviewPolicy | None
    summary: str
    unmet: tuple[str, ...] = ()


def decide(classifier: Classifier, settings: DecisionSettings, val: Records) -> Decided:
    """Choose decision and limits of review on validation.

    Requirements and costs replace those that the classifier has, if any are set, also to none; its class weights stay,
    unless there are costs, and so does every limit that is not set.

    Args:
        classifier: A trained classifier, which is not changed.
        settings: Requirements or costs; coverage and in_distribution count where they are set.
        val: Its predictions on validation.

    Raises:
        RecipeError: As `check_requirements` does, or a limit is set of a classifier that flags no images.
    """
    check_requirements(settings, classifier.classes, classifier.task)
    chosen = choose_decision(settings, classifier.classes, val.scored, classifier.decision)
    policy = classifier.review_policy
    if policy:
        policy = refit_review_policy(policy, decided(chosen.decision, val.scored), val.distance, settings)
    named = [name for name in LIMITS if name in settings.model_fields_set]
    if named and policy is None:
        names = " and ".join(f"decision.{name}" for name in named)
        raise RecipeError(f"{names}: this classifier flags no images for review; train it again, then set its limits")
    limits = [f"{name} {getattr(settings, name):g}" for name in named]
    summary = "; ".join(filter(None, (chosen.decision.reason, *limits))) or "no requirement"
    unmet = (*chosen.unmet, *unmet_limits(settings, classifier.task, len(val.scored), named))
    return Decided(chosen.decision, policy, summary, unmet)


def evaluate_records(classifier: Classifier, records: Records) -> Evaluation:
    """What the decision and the limits of review that a classifier has now give on predictions of its run."""
    policy = classifier.review_policy
    out_of_distribution = policy.exceeds_max_distance(records.distance) if policy else None
    return summarise(classifier, decided(classifier.decision, records.scored), out_of_distribution, unreadable=())
