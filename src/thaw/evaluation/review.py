"""The review policy: which images to flag, fitted on training features and validation predictions."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from thaw import formats
from thaw.classifier.decision import confidences
from thaw.classifier.neighbours import unit_rows
from thaw.classifier.outputs import LabelledOutputs
from thaw.classifier.review import MAX_TRAIN_FEATURES, ReviewPolicy, distances
from thaw.metrics import Estimate, Scored
from thaw.recipe import DecisionSettings, Task
from thaw.seeds import derive_seed

MAX_COSINE_DISTANCE = 2.0
"""The limit where validation has too few images for one: no image is farther from those of training."""

LIMITS = ("coverage", "in_distribution")
"""Settings of what is flagged for review."""


@dataclass(frozen=True)
class ReviewRates:
    """What a review policy flags in a set, as fractions of its images.

    `None` where it does not apply, or validation had too few images to set the limit.

    Attributes:
        covered: The true class is among the candidates.
        ambiguous: Flagged because the label is not the only candidate.
        out_of_distribution: Flagged because the features are far from those of training.
        accuracy_of_rest: Accuracy on the images that are not flagged.
    """

    covered: Estimate | None
    ambiguous: Estimate | None
    out_of_distribution: Estimate | None
    accuracy_of_rest: Estimate | None


def fit_review_policy(
    train: LabelledOutputs, val_features: np.ndarray, scored: Scored, settings: DecisionSettings, seed: int
) -> ReviewPolicy:
    """Remember features of training images, and take thresholds from validation.

    Thresholds are conformal quantiles, so that their coverage holds for new images and not only for validation (Vovk
    et al. 2005).

    Args:
        train: Outputs for training images.
        val_features: (M, W) pooled features of the validation images.
        scored: Their calibrated predictions.
        settings: Coverage to reach.
        seed: Random seed of the choice of training images to remember.
    """
    train_features = remembered_features(train, seed)
    val_distances = distances(val_features, train_features)
    return ReviewPolicy(
        train_features=train_features,
        max_distance=conformal_quantile(val_distances, settings.in_distribution, MAX_COSINE_DISTANCE),
        min_probability=_min_probability(scored, settings.coverage),
        confidence=float(confidences(scored.probabilities, scored.predicted, scored.task).mean()),
        class_fractions=tuple(scored.predicted.mean(axis=0).tolist()),
    )


def remembered_features(train: LabelledOutputs, seed: int) -> np.ndarray:
    """The features of training images that a review policy remembers, (M, W) float16, scaled to length one."""
    return unit_rows(train.features[_rows_to_remember(train.targets, seed)]).astype(np.float16)


def refit_review_policy(
    policy: ReviewPolicy, scored: Scored, distances: np.ndarray, settings: DecisionSettings
) -> ReviewPolicy:
    """The policy of the same classifier with another decision, and with those limits that the settings name.

    Args:
        policy: The policy until now.
        scored: Calibrated predictions of the validation images, with the labels of the new decision.
        distances: (M,) of these images to their nearest training images.
        settings: Their coverage and in_distribution count where they are set.
    """
    max_distance, min_probability = policy.max_distance, policy.min_probability
    if "in_distribution" in settings.model_fields_set:
        max_distance = conformal_quantile(distances, settings.in_distribution, MAX_COSINE_DISTANCE)
    if "coverage" in settings.model_fields_set:
        min_probability = _min_probability(scored, settings.coverage)
    return replace(
        policy,
        max_distance=max_distance,
        min_probability=min_probability,
        confidence=float(confidences(scored.probabilities, scored.predicted, scored.task).mean()),
        class_fractions=tuple(scored.predicted.mean(axis=0).tolist()),
    )


def unmet_limits(settings: DecisionSettings, task: Task, images: int, names: Collection[str]) -> tuple[str, ...]:
    """One sentence for each limit that cannot be fitted, so that no image is flagged by it.

    Args:
        settings: Coverage and in_distribution.
        task: Of the classifier.
        images: Number of validation images.
        names: The settings to look at.
    """
    unmet = []
    for name, kind in (("coverage", "ambiguous"), ("in_distribution", "out-of-distribution")):
        fraction = getattr(settings, name)
        if name not in names:
            continue
        if name == "coverage" and task == "multilabel":
            unmet.append(
                "decision.coverage: does not apply to a multilabel classifier, which decides on each label alone"
            )
        elif not _is_reachable(images, fraction):
            needed = next(count for count in itertools.count(images) if _is_reachable(count, fraction))
            unmet.append(
                f"decision.{name}: {fraction:g} takes at least {formats.count(needed, 'validation image')}, and there "
                f"are {images:,}; no image can be flagged as {kind}"
            )
    return tuple(unmet)


def conformal_quantile(values: np.ndarray, coverage: float, maximum: float) -> float:
    """The value that a new one exceeds with probability at most 1 - coverage.

    Args:
        values: (M,), exchangeable with the new one.
        coverage: 0..1.
        maximum: Returned where M values are too few for that coverage.
    """
    rank = _rank(len(values), coverage)
    return maximum if rank > len(values) else float(np.sort(values)[rank - 1])


def review_rates(policy: ReviewPolicy, out_of_distribution: np.ndarray, scored: Scored) -> ReviewRates:
    """What a policy flags in a set of which `out_of_distribution` (N,) bool is known."""
    ambiguous = policy.is_ambiguous(scored.probabilities, scored.predicted)
    covered = (policy.candidates(scored.probabilities) & scored.truth).any(axis=1)
    has_candidates, has_limit = policy.min_probability is not None, policy.max_distance < MAX_COSINE_DISTANCE
    of_covered, of_ambiguous, of_distribution = scored.fractions(covered, ambiguous, out_of_distribution)
    return ReviewRates(
        covered=of_covered if has_candidates else None,
        ambiguous=of_ambiguous if has_candidates else None,
        out_of_distribution=of_distribution if has_limit else None,
        accuracy_of_rest=scored.fraction(scored.correct, ~(ambiguous | out_of_distribution)),
    )


def _rank(images: int, coverage: float) -> int:
    """Which of so many values, 1 for the smallest, is the conformal quantile; more than there are if there is none."""
    return max(1, int(np.ceil((images + 1) * coverage - 1e-9)))


def _is_reachable(images: int, coverage: float) -> bool:
    return _rank(images, coverage) <= images


def _min_probability(scored: Scored, coverage: float) -> float | None:
    """The probability from which a class is a candidate; `None` for multilabel and for too few images."""
    if scored.task == "multilabel":
        return None
    # Of what is negated, not of complements: those are rounded, and may exclude the very image that sets the limit.
    limit = conformal_quantile(-scored.probabilities[scored.truth], coverage, np.inf)
    return None if np.isinf(limit) else -limit


def _rows_to_remember(targets: np.ndarray, seed: int) -> np.ndarray:
    """At most `MAX_TRAIN_FEATURES` rows, at random and at most equally many of each class."""
    if len(targets) <= MAX_TRAIN_FEATURES:
        return np.arange(len(targets))
    rng = np.random.default_rng(derive_seed(seed, "bank"))
    if targets.ndim > 1:
        return np.sort(rng.permutation(len(targets))[:MAX_TRAIN_FEATURES])
    labels = np.unique(targets)
    limit = MAX_TRAIN_FEATURES // len(labels) or 1
    rows = [rng.permutation(np.flatnonzero(targets == label))[:limit] for label in labels]
    return np.sort(np.concatenate(rows)[:MAX_TRAIN_FEATURES])
