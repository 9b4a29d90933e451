"""95% confidence intervals: Wilson's for proportions of independent images, the bootstrap for everything else.

Wilson's interval (1927) keeps its coverage for few images and for fractions near one. The bootstrap (Efron 1979) draws
images, or whole groups of images where they come in groups (cluster bootstrap, Davison and Hinkley 1997, section 3.8).
Its intervals of few groups are too narrow: simulated, those of 4 groups of 20 images cover 79% instead of 95%. They are
widened by Student's t for that number of groups, as is usual for clustered standard errors (Cameron and Miller 2015,
section VI), to a coverage of 91% to 98%.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

MAX_DRAWS, MIN_DRAWS = 1_000, 100
MANY_IMAGES = 10_000
"""Of more, images are drawn by what is faster for many."""

_Z95 = 1.959964
_ROUNDING = 1e-9
_MAX_OPERATIONS = 2e8
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """The value of a metric and the bounds of its 95% interval, in the unit of the metric."""

    value: float
    low: float
    high: float


def wilson(fraction: float, trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a fraction 0..1 observed over `trials` independent trials (Wilson 1927)."""
    centre = (fraction + _Z95**2 / (2 * trials)) / (1 + _Z95**2 / trials)
    half = _Z95 / (1 + _Z95**2 / trials) * sqrt(fraction * (1 - fraction) / trials + _Z95**2 / (4 * trials**2))
    return max(0.0, min(centre - half, fraction)), min(1.0, max(centre + half, fraction))


def fraction(flags: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> Estimate | None:
    """The fraction of `flags` (N,) bool that are true; `None` if there are none.

    Args:
        flags: (N,) bool.
        groups: (N,) int, images with the same number are dependent; `None` where all are independent.
        seed: Random seed of the bootstrap.
    """
    return fractions(flags[:, None], groups, seed)[0]


def fractions(flags: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> list[Estimate | None]:
    """What `fraction` gives for each column of `flags` (N, K) bool, from the same draws."""
    images, columns = flags.shape
    if not images:
        return [None] * columns
    values = flags.mean(axis=0)
    if groups is None:
        return [Estimate(value, *wilson(value, images)) for value in values.tolist()]
    draws, count = _mean_draws(flags, groups, seed), len(np.unique(groups))
    return [
        bootstrap_estimate(np.append(value, column), count, count, (0.0, 1.0))
        for value, column in zip(values, draws, strict=True)
    ]


def paired_difference(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> Estimate | None:
    """The fraction of `after` (N,) bool that are true minus that of `before`, on the same images (paired bootstrap).

    `None` if there are none. Groups as for `fraction`.
    """
    return paired_differences(before[:, None], after[:, None], groups, seed)[0]


def paired_differences(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> list[Estimate | None]:
    """What `paired_difference` gives for each column of `before` and `after` (N, K) bool, from the same draws."""
    images, columns = after.shape
    if not images:
        return [None] * columns
    changes = after.astype(float) - before
    return [
        difference_estimate(np.append(value, column), groups, images, 1.0)
        for value, column in zip(changes.mean(axis=0), _mean_draws(changes, groups, seed), strict=True)
    ]


def _mean_draws(values: np.ndarray, groups: np.ndarray | None, seed: int) -> list[np.ndarray]:
    """Bootstrap draws (R,) of the mean of each column of whole numbers (N, K); none of one that is all the same."""
    differ = (values != values[:1]).any(axis=0)
    draws: Iterator[np.ndarray] = iter(())
    if differ.any():
        weights, varying = bootstrap_weights(groups, len(values), bootstrap_draws(len(values)), seed), values[:, differ]
        draws = iter(np.concatenate([drawn @ varying / drawn.sum(axis=1, keepdims=True) for drawn in weights]).T)
    return [next(draws) if differs else np.empty(0) for differs in differ]


def bootstrap_draws(cells: int) -> int:
    """Number of bootstrap draws for an array of `cells` probabilities: as many as stay fast, 100 to 1,000."""
    return int(np.clip(_MAX_OPERATIONS / max(cells, 1), MIN_DRAWS, MAX_DRAWS))


def bootstrap_weights(groups: np.ndarray | None, images: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image, or its whole group, is drawn: (R, N) float32, in chunks of bounded memory."""
    rng = np.random.default_rng(seed)
    group_of = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(group_of.max()) + 1
    step = max(1, _CHUNK // max(images, 1))
    for start in range(0, draws, step):
        drawn = _drawn(rng, count, min(step, draws - start))
        yield drawn[:, group_of].astype(np.float32)


def _drawn(rng: np.random.Generator, units: int, draws: int) -> np.ndarray:
    """How often each unit is drawn, (draws, units), of as many with replacement."""
    if units <= MANY_IMAGES:
        return rng.multinomial(units, np.full(units, 1 / units), size=draws)
    # The same distribution, of other random numbers, which are drawn ten times as fast.
    return np.stack([np.bincount(rng.integers(units, size=units), minlength=units) for _ in range(draws)])


def bootstrap_estimate(
    values: np.ndarray, trials: int, groups: int = 0, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate | None:
    """The estimate from a value and its bootstrap draws.

    Args:
        values: (1 + R,), the value on all images first, then one per bootstrap draw; NaN where undefined.
        trials: Number of trials of the Wilson interval that replaces percentiles where no draw differs, as for a
            perfect score on few images, and where draws say nothing because all is one group; 0 for a metric that is no
            fraction of trials.
        groups: Number of groups that were drawn; 0 where the images were.
        limits: The lowest and the highest value of the metric.

    Returns:
        The estimate, or `None` where the value is undefined.
    """
    value, draws = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value):
        return None
    low, high = np.percentile(draws, (2.5, 97.5)) if len(draws) else (value, value)
    if (high - low < _ROUNDING or groups == 1) and trials and 0 <= value <= 1:
        low, high = wilson(value, trials)
    else:
        factor = widening(groups)
        low, high = value - (value - low) * factor, value + (high - value) * factor
    return Estimate(value, min(max(float(low), limits[0]), value), max(min(float(high), limits[1]), value))


def difference_estimate(values: np.ndarray, groups: np.ndarray | None, images: int, largest: float) -> Estimate | None:
    """The estimate of a difference from its value and its bootstrap draws.

    Args:
        values: As for `bootstrap_estimate`.
        groups: (N,) that were drawn; `None` where the images were.
        images: N.
        largest: Difference that is possible in either direction: the interval where all images are one unit, because
            every draw of it is the same.
    """
    drawn = 0 if groups is None else len(np.unique(groups))
    estimate = bootstrap_estimate(values, 0, drawn, (-largest, largest))
    is_one_unit = (drawn or images) == 1
    return Estimate(estimate.value, -largest, largest) if estimate and is_one_unit else estimate


def widening(groups: int) -> float:
    """The factor by which a bootstrap interval of few groups is too narrow; 1 for independent images."""
    return t95(groups) / _Z95 * sqrt(groups / (groups - 1)) if groups > 1 else 1.0


def mean_interval(mean: float, standard_error: float, values: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a mean of fractions 0..1: by Student's t, or Wilson's where there is no spread to go by.

    Args:
        mean: The mean.
        standard_error: Of the mean.
        values: Number of independent values that both are of.
        trials: Number of trials of Wilson's interval.
    """
    if values < 2 or standard_error < _ROUNDING:
        return wilson(mean, trials)
    half = t95(values) * standard_error
    return max(0.0, mean - half), min(1.0, mean + half)


def t95(values: int) -> float:
    """Half the width of the 95% interval of a mean of so many values, 2 or more, in standard errors (Student's t)."""
    from scipy.special import stdtrit

    return float(stdtrit(values - 1, 0.975))
