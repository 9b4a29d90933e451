"""What predictions are worth, every figure with its 95 % interval.

Each figure is a function of weighted images, defined once: weights of one give the figure itself, and weights drawn
anew give its interval, by the bootstrap over images or over the groups that they come in (Efron 1979; for groups the
cluster bootstrap, Davison and Hinkley 1997, section 3.8). Shares of images without groups have Wilson's interval
(1927), which stays honest for few images and for shares near one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from thaw.classifier.metrics import wilson
from thaw.recipe import Task

MOST_REPEATS, LEAST_REPEATS = 1_000, 100
_WORK = 2e8
_CHUNK = 4_000_000
BINS = 15
"""Equal bins of confidence in the calibration error, as Guo et al. 2017 use."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, in the figure's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """Predictions beside the truth.

    probabilities: (N, C) float 0..1. truth, predicted: (N, C) bool, one true value a row unless multilabel. groups:
    (N,) int, which images belong together; `None` where each stands alone.
    """

    task: Task
    probabilities: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: the label is right; for multilabel all of them."""
        return np.asarray((self.truth == self.predicted).all(axis=1))

    def fraction(self, flags: np.ndarray, where: np.ndarray | None = None) -> Estimate | None:
        """The share of `flags` (N,) bool that hold, of all images or of those `where` (N,) bool; `None` of none."""
        if where is None:
            return fraction(flags, self.groups)
        return fraction(flags[where], None if self.groups is None else self.groups[where])


@dataclass(frozen=True)
class OverallMetrics:
    """Figures of a whole set, 0..1 but the loss.

    accuracy, balanced_accuracy, macro_f1, mean_average_precision, loss: as `classifier.metrics.Metrics` has them.
    auroc: mean over the classes of the area under the receiver operating characteristic, each against the rest.
    calibration_error: mean distance between confidence and share of right answers, in bins (Guo et al. 2017).
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    mean_average_precision: Estimate
    auroc: Estimate | None
    loss: Estimate
    calibration_error: Estimate


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class against the rest, 0..1; `None` where they are not defined, as recall without images."""

    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    average_precision: Estimate | None
    auroc: Estimate | None


def truth_of(targets: np.ndarray, classes: int) -> np.ndarray:
    """(N, C) bool from class indices (N,) int64, or from (N, C) float 0/1 for multilabel."""
    return np.asarray(targets > 0.5 if targets.ndim > 1 else targets[:, None] == np.arange(classes))


def overall(scored: Scored, seed: int = 0) -> OverallMetrics:
    """Figures of the whole set."""
    values = _with_repeats(scored, seed, lambda weights: _overall(scored, weights))
    count = _independent(scored)
    rarest = int(max(1, scored.truth.sum(axis=0)[scored.truth.any(axis=0)].min(initial=len(scored))))
    sizes = {"accuracy": count, "loss": 0, "calibration_error": 0}
    found = {
        name: _estimate(values[:, index], sizes.get(name, min(rarest, count)))
        for index, name in enumerate(field.name for field in fields(OverallMetrics))
    }
    if scored.groups is None:
        fraction = float(scored.right.mean())
        found["accuracy"] = Estimate(fraction, *wilson(fraction, len(scored)))
    return OverallMetrics(**found)  # type: ignore[arg-type]


def per_class(scored: Scored, seed: int = 0) -> tuple[ClassMetrics, ...]:
    """Figures of each class."""
    values = _with_repeats(scored, seed, lambda weights: _per_class(scored, weights))
    names = [field.name for field in fields(ClassMetrics)]
    truth, predicted = scored.truth, scored.predicted
    found = []
    for index in range(truth.shape[1]):
        of, called = int(truth[:, index].sum()), int(predicted[:, index].sum())
        sizes = {"precision": called}
        figures = {name: _estimate(values[:, place, index], sizes.get(name, of)) for place, name in enumerate(names)}
        if scored.groups is None:
            hits = int((truth[:, index] & predicted[:, index]).sum())
            for name, trials in (("precision", called), ("recall", of)):
                if trials:
                    figures[name] = Estimate(hits / trials, *wilson(hits / trials, trials))
        found.append(ClassMetrics(**figures))
    return tuple(found)


def difference(first: Scored, second: Scored, seed: int = 0) -> dict[str, Estimate]:
    """By how much each figure of `OverallMetrics` is higher for the second of two answers to the same images, in one order.

    Both are drawn together, so that what is hard for both tells nothing (paired bootstrap).
    """
    values = _with_repeats(first, seed, lambda weights: _overall(second, weights) - _overall(first, weights))
    found = {}
    for index, field in enumerate(fields(OverallMetrics)):
        if (estimate := _estimate(values[:, index], 0)) is not None:
            found[field.name] = estimate
    return found


def fraction(flags: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> Estimate | None:
    """The share of `flags` (N,) bool that hold; `None` of none."""
    if not len(flags):
        return None
    value = float(flags.mean())
    if groups is None:
        return Estimate(value, *wilson(value, len(flags)))
    draws = [w @ flags / w.sum(axis=1) for w in weights_of(groups, len(flags), _repeats(len(flags)), seed)]
    return _estimate(np.concatenate([[value], *draws]), len(np.unique(groups)))


def weights_of(groups: np.ndarray | None, count: int, repeats: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap weights (R, N) in chunks of flat memory: how often each image, or each group, is drawn."""
    rng = np.random.default_rng(seed)
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    number = int(members.max()) + 1
    step = max(1, _CHUNK // max(count, 1))
    for start in range(0, repeats, step):
        drawn = rng.multinomial(number, np.full(number, 1 / number), size=min(step, repeats - start))
        yield drawn[:, members].astype(np.float32)


def _with_repeats(scored: Scored, seed: int, figures: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The figures themselves in the first row, then those of each bootstrap repeat."""
    own = figures(np.ones((1, len(scored))))
    repeats = _repeats(scored.truth.size)
    drawn = [figures(weights) for weights in weights_of(scored.groups, len(scored), repeats, seed)]
    return np.concatenate([own, *drawn])


def _repeats(cells: int) -> int:
    return int(np.clip(_WORK / max(cells, 1), LEAST_REPEATS, MOST_REPEATS))


def _estimate(values: np.ndarray, count: int) -> Estimate | None:
    """The first value, and percentiles of the rest; where nothing varies, Wilson's interval over `count` trials."""
    value, repeats = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value):
        return None
    low, high = np.percentile(repeats, (2.5, 97.5)) if len(repeats) else (value, value)
    if high - low < 1e-9 and count and 0 <= value <= 1:
        low, high = wilson(value, count)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _independent(scored: Scored) -> int:
    return len(scored) if scored.groups is None else len(np.unique(scored.groups))


def _overall(scored: Scored, weights: np.ndarray) -> np.ndarray:
    """(R, figures) in the order of `OverallMetrics`."""
    total = weights.sum(axis=1)
    _, recall, f1, average_precision, auroc = np.moveaxis(_per_class(scored, weights), 1, 0)
    recalls = recall
    if scored.task == "multilabel":
        rest, wrongly = weights @ ~scored.truth, weights @ (~scored.truth & scored.predicted)
        recalls = np.concatenate([recall, 1.0 - _ratio(wrongly, rest)], axis=1)
    return np.stack(
        [
            weights @ scored.right / total,
            _mean(recalls),
            np.nan_to_num(f1).mean(axis=1),
            _mean(average_precision),
            _mean(auroc),
            weights @ _loss(scored) / total,
            _calibration_error(scored, weights) / total,
        ],
        axis=1,
    )


def _per_class(scored: Scored, weights: np.ndarray) -> np.ndarray:
    """(R, figures, C) in the order of `ClassMetrics`; NaN where a figure is not defined."""
    truth, predicted = scored.truth, scored.predicted
    hits, of, called = weights @ (truth & predicted), weights @ truth, weights @ predicted
    ranked = [_ranked(scored.probabilities[:, c], truth[:, c], weights) for c in range(truth.shape[1])]
    return np.stack(
        [
            _ratio(hits, called),
            _ratio(hits, of),
            _ratio(2 * hits, of + called),
            np.stack([item[0] for item in ranked], axis=1),
            np.stack([item[1] for item in ranked], axis=1),
        ],
        axis=1,
    )


def _ranked(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (R,) and area under the receiver operating characteristic (R,); equal scores count as one."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ordered = weights[:, order].astype(np.float64)
    hits = np.cumsum(ordered * truth[order], axis=1)[:, last]
    alarms = np.cumsum(ordered * ~truth[order], axis=1)[:, last]
    positives, negatives = hits[:, -1], alarms[:, -1]
    gained = np.diff(hits, axis=1, prepend=0.0)
    average = _ratio((gained * _ratio(hits, hits + alarms, 0.0)).sum(axis=1), positives)
    before = hits - gained
    area = (np.diff(alarms, axis=1, prepend=0.0) * (before + gained / 2)).sum(axis=1)
    return average, _ratio(area, positives * negatives)


def _loss(scored: Scored) -> np.ndarray:
    likelihood = np.where(scored.truth, scored.probabilities, 1.0 - scored.probabilities)
    chosen = likelihood if scored.task == "multilabel" else scored.probabilities[scored.truth][:, None]
    return np.asarray(-np.log(np.clip(chosen, 1e-12, 1.0)).mean(axis=1))


def confidence_of(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """How sure each answer is, 0..1, and whether it is right; for multilabel each label of each image is one."""
    if scored.task == "multilabel":
        sure = np.where(scored.predicted, scored.probabilities, 1.0 - scored.probabilities)
        return sure.reshape(-1), (scored.truth == scored.predicted).reshape(-1)
    return (scored.probabilities * scored.predicted).sum(axis=1), scored.right


def calibration_error(scored: Scored, seed: int = 0) -> Estimate:
    """Mean distance between confidence and the share of right answers, 0..1 (Guo et al. 2017)."""
    values = _with_repeats(scored, seed, lambda weights: _calibration_error(scored, weights) / weights.sum(axis=1))
    found = _estimate(values, 0)
    assert found is not None
    return found


def _calibration_error(scored: Scored, weights: np.ndarray) -> np.ndarray:
    sure, right = confidence_of(scored)
    answers = len(sure) // max(len(scored), 1)
    gap = ((sure - right) / max(answers, 1)).reshape(len(scored), -1)
    place = np.minimum((sure * BINS).astype(int), BINS - 1).reshape(len(scored), -1)
    off = [np.abs(weights @ np.where(place == index, gap, 0.0).sum(axis=1)) for index in range(BINS)]
    return np.asarray(np.sum(off, axis=0))


def _ratio(part: np.ndarray, whole: np.ndarray, missing: float = np.nan) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), missing, dtype=np.float64), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the classes for which there is a value; NaN where there is none."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))
