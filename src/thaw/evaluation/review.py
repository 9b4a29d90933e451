"""The borders beyond which an image is one for a person, from training and validation images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.classifier.review import MAX_TRAIN_FEATURES, ReviewPolicy, distances, unit
from thaw.evaluation.metrics import Estimate, Scored, confidence_of
from thaw.recipe import DecisionSettings
from thaw.seeds import derive_seed

FARTHEST = 2.0
"""The largest cosine distance there is."""


@dataclass(frozen=True)
class ReviewRates:
    """What a set would leave to a person, shares of its images; `None` where it does not apply.

    covered: the true class is among the candidates. unsure: not exactly one candidate. unlike: unlike any training
    image. right_of_rest: accuracy on the images that are neither.
    """

    covered: Estimate | None
    ambiguous: Estimate | None
    out_of_distribution: Estimate | None
    accuracy_of_rest: Estimate | None


def fit_review_policy(
    train: np.ndarray, train_targets: np.ndarray, val: np.ndarray, scored: Scored, settings: DecisionSettings, seed: int
) -> ReviewPolicy:
    """Remember training features (N, W), and take the borders from validation features (M, W) and their scores.

    Borders are the conformal quantiles of M values, the ceil((M + 1) share)-th, so that they hold for the next image
    and not only for these (Vovk et al. 2005).
    """
    train_features = unit(train[_selected_rows(train_targets, seed)]).astype(np.float16)
    max_distance = conformal(distances(val, train_features), settings.in_distribution, FARTHEST)
    sure, _ = confidence_of(scored)
    return ReviewPolicy(
        train_features=train_features,
        max_distance=max_distance,
        min_probability=conformal_probability(scored, settings.coverage),
        confidence=float(sure.mean()),
        class_fractions=tuple(scored.predicted.mean(axis=0).tolist()),
    )


def conformal_probability(scored: Scored, coverage: float) -> float | None:
    """The probability that the true class of the wanted share of images has at least.

    `None` for multilabel, and where there are too few images to say.
    """
    if scored.task == "multilabel":
        return None
    missing = conformal(1.0 - scored.probabilities[scored.truth], coverage, np.inf)
    return None if np.isinf(missing) else 1.0 - missing


def conformal(values: np.ndarray, share_below: float, most: float) -> float:
    """The value that the next one stays below with the wanted probability; `most` where there are too few to say."""
    place = int(np.ceil((len(values) + 1) * share_below - 1e-9))
    return most if place > len(values) else float(np.sort(values)[max(place, 1) - 1])


def review_rates(review_policy: ReviewPolicy, out_of_distribution: np.ndarray, scored: Scored) -> ReviewRates:
    """What a set would leave to a person; `out_of_distribution` (N,) bool says which images are unlike any of training."""
    candidates, ambiguous = (
        review_policy.candidates(scored.probabilities),
        review_policy.is_ambiguous(scored.probabilities),
    )
    rest = ~(ambiguous | out_of_distribution)
    has_candidates = review_policy.min_probability is not None
    return ReviewRates(
        covered=scored.fraction((candidates & scored.truth).any(axis=1)) if has_candidates else None,
        ambiguous=scored.fraction(ambiguous) if has_candidates else None,
        out_of_distribution=scored.fraction(out_of_distribution),
        accuracy_of_rest=scored.fraction(scored.right, rest),
    )


def _selected_rows(targets: np.ndarray, seed: int) -> np.ndarray:
    """At most so many rows, as many of each class as there are or as its share allows."""
    rng = np.random.default_rng(derive_seed(seed, "bank"))
    if len(targets) <= MAX_TRAIN_FEATURES:
        return np.arange(len(targets))
    if targets.ndim > 1:
        return np.sort(rng.permutation(len(targets))[:MAX_TRAIN_FEATURES])
    each = MAX_TRAIN_FEATURES // len(np.unique(targets)) or 1
    rows = [rng.permutation(np.flatnonzero(targets == label))[:each] for label in np.unique(targets)]
    return np.sort(np.concatenate(rows)[:MAX_TRAIN_FEATURES])
