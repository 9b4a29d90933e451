"""The borders beyond which an image is one for a person, from training and validation images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.classifier.review import MOST_KEPT, Familiar, distances, unit
from thaw.evaluation.metrics import Estimate, Scored, confidence_of
from thaw.recipe import DecideSettings
from thaw.seeds import derive_seed

FARTHEST = 2.0
"""The largest cosine distance there is."""


@dataclass(frozen=True)
class ForAPerson:
    """What a set would leave to a person, shares of its images; `None` where it does not apply.

    covered: the true class is among the candidates. unsure: not exactly one candidate. unlike: unlike any training
    image. right_of_rest: accuracy on the images that are neither.
    """

    covered: Estimate | None
    unsure: Estimate | None
    unlike: Estimate | None
    right_of_rest: Estimate | None


def learn_familiar(
    train: np.ndarray, train_targets: np.ndarray, val: np.ndarray, scored: Scored, settings: DecideSettings, seed: int
) -> Familiar:
    """Remember training features (N, W), and take the borders from validation features (M, W) and their scores.

    Borders are the conformal quantiles of M values, the ceil((M + 1) share)-th, so that they hold for the next image
    and not only for these (Vovk et al. 2005).
    """
    bank = unit(train[_kept(train_targets, seed)]).astype(np.float16)
    farthest = conformal(distances(val, bank), settings.familiar, FARTHEST)
    sure, _ = confidence_of(scored)
    return Familiar(
        bank=bank,
        farthest=farthest,
        least=least_likely(scored, settings.coverage),
        confidence=float(sure.mean()),
        shares=tuple(scored.predicted.mean(axis=0).tolist()),
    )


def least_likely(scored: Scored, coverage: float) -> float | None:
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


def for_a_person(familiar: Familiar, unlike: np.ndarray, scored: Scored) -> ForAPerson:
    """What a set would leave to a person; `unlike` (N,) bool says which images are unlike any of training."""
    candidates, unsure = familiar.candidates(scored.probabilities), familiar.is_unsure(scored.probabilities)
    rest = ~(unsure | unlike)
    knows = familiar.least is not None
    return ForAPerson(
        covered=scored.share((candidates & scored.truth).any(axis=1)) if knows else None,
        unsure=scored.share(unsure) if knows else None,
        unlike=scored.share(unlike),
        right_of_rest=scored.share(scored.right, rest),
    )


def _kept(targets: np.ndarray, seed: int) -> np.ndarray:
    """At most so many rows, as many of each class as there are or as its share allows."""
    rng = np.random.default_rng(derive_seed(seed, "bank"))
    if len(targets) <= MOST_KEPT:
        return np.arange(len(targets))
    if targets.ndim > 1:
        return np.sort(rng.permutation(len(targets))[:MOST_KEPT])
    each = MOST_KEPT // len(np.unique(targets)) or 1
    rows = [rng.permutation(np.flatnonzero(targets == label))[:each] for label in np.unique(targets)]
    return np.sort(np.concatenate(rows)[:MOST_KEPT])
