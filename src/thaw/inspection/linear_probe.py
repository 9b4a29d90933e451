"""What stored features tell without training a network: how well they separate the classes, which labels look wrong,
which images are unlike any other, how accuracy grows with the number of images, and a map of the set.

Every prediction is made for images that the model was not fitted on, near-duplicates always on the same side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thaw.inspection.health import robust_distance

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FOLDS = 5
NEIGHBOURS = 5
INVERSE_REGULARISATION = 0.003
"""Of the logistic regression on standardised features. Measured on three sets with MobileNetV2: 0.01 is up to 1.5
points more accurate, 0.001 finds wrong labels up to 9 points better (average precision)."""

_OWN_NEIGHBOURS = 10
_OUTLYING = 2.5
"""Ten foreign pictures among solar cells or steel, under random labels, came first or nearly so (average precision 0.79
to 1.0); among photographs of waste, which are as varied as what was planted, they did not (0.14 to 0.35)."""

_MOST_ITERATIONS = 200
_SHARES = (0.1, 0.2, 0.35, 0.55, 0.8)
_REPEATS = 4
_FORECAST = (2, 4)
_MOST_MAPPED = 3000


@dataclass(frozen=True)
class Features:
    """Pooled features (N, C) float32 of readable `rows`, their class indices (N,), and what must stay together (N,)."""

    rows: np.ndarray
    values: np.ndarray
    classes: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class LinearProbe:
    """Cross-validated accuracies in 0..1 of a linear head and of nearest neighbours, beside the largest class's share.

    probabilities: (N, classes), each row from a head that was fitted without it and what it is grouped with.
    """

    folds: int
    linear: float
    linear_balanced: float
    neighbours: float
    majority: float
    probabilities: np.ndarray


@dataclass(frozen=True)
class LabelError:
    """A label that is probably wrong: the row, the class it has and the one it looks like, with their probabilities."""

    row: int
    given: int
    given_probability: float
    suggested: int
    suggested_probability: float


@dataclass(frozen=True)
class Outlier:
    """An image far from its class: how many times farther from its nearest neighbours there than is usual."""

    row: int
    times: float


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy with so many training images, and a 95 % interval of it."""

    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """Measured points, and what the fitted curve says for more images than there are."""

    measured: tuple[CurvePoint, ...]
    forecast: tuple[CurvePoint, ...]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and OpenMP use one thread: with matrices as small as these, several spend their time on waiting."""
    # What is not loaded yet cannot be limited.
    import sklearn.linear_model
    import sklearn.manifold
    import sklearn.neighbors  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def probe(features: Features) -> LinearProbe | None:
    """Accuracy under cross-validation; `None` where a class has fewer than two images or groups."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier

    folds = _folds(features)
    if folds is None:
        return None
    size = int(features.classes.max()) + 1
    probabilities = np.zeros((len(features), size), np.float32)
    near = np.zeros(len(features), int)
    for train, test in folds:
        fitted = fit_head(features.values[train], features.classes[train])
        probabilities[np.ix_(test, fitted.classes_)] = fitted.predict_proba(features.values[test])
        neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine")
        near[test] = neighbours.fit(features.values[train], features.classes[train]).predict(features.values[test])
    predicted, truth = probabilities.argmax(axis=1), features.classes
    return LinearProbe(
        folds=len(folds),
        linear=float((predicted == truth).mean()),
        linear_balanced=float(balanced_accuracy_score(truth, predicted)),
        neighbours=float((near == truth).mean()),
        majority=float(np.bincount(truth).max() / len(truth)),
        probabilities=probabilities,
    )


def find_label_errors(features: Features, found: LinearProbe) -> tuple[LabelError, ...]:
    """Labels that are probably wrong, the surest first: confident learning (Northcutt et al. 2021), by cleanlab."""
    from cleanlab.filter import find_label_issues

    present, labels = np.unique(features.classes, return_inverse=True)
    probabilities = found.probabilities[:, present]
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True).clip(1e-12)
    order = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    best = probabilities.argmax(axis=1)
    return tuple(
        LabelError(
            int(features.rows[index]),
            int(features.classes[index]),
            float(probabilities[index, labels[index]]),
            int(present[best[index]]),
            float(probabilities[index, best[index]]),
        )
        for index in order
    )


def find_outliers(features: Features) -> tuple[Outlier, ...]:
    """Images far from the nearest of their own class, the farthest first: a foreign picture, or a wrong label.

    How far is told by the logarithm of the mean cosine distance, in robust deviations within the class.
    """
    from sklearn.neighbors import NearestNeighbors

    distances, times = np.zeros(len(features)), np.zeros(len(features))
    for label in np.unique(features.classes):
        own = np.flatnonzero(features.classes == label)
        if len(own) < 2 * _OWN_NEIGHBOURS:
            continue
        nearest = NearestNeighbors(n_neighbors=_OWN_NEIGHBOURS + 1, metric="cosine").fit(features.values[own])
        away = nearest.kneighbors(features.values[own])[0][:, 1:].mean(axis=1).clip(1e-12)
        distances[own], times[own] = robust_distance(np.log(away)), away / np.median(away)
    order = np.argsort(-distances)
    return tuple(Outlier(int(features.rows[i]), float(times[i])) for i in order if distances[i] > _OUTLYING)


def learning_curve(features: Features, seed: int = 0) -> LearningCurve | None:
    """Accuracy of a linear head against its training images, extrapolated along a - b * n^-c (Cortes et al. 1993).

    The interval of the forecast is that of curves fitted to resampled measurements. `None` where `probe` gives `None`.
    """
    folds = _folds(features)
    if folds is None:
        return None
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    runs: list[list[float]] = []
    for fraction in (*_SHARES, 1.0):
        results, counts = [], []
        for train, test in folds[:_REPEATS]:
            chosen = _stratified(features.classes, train, fraction, rng)
            if len(np.unique(features.classes[chosen])) < 2:
                continue
            fitted = fit_head(features.values[chosen], features.classes[chosen])
            results.append(float(fitted.score(features.values[test], features.classes[test])))
            counts.append(len(chosen))
        if results:
            sizes.append(round(float(np.mean(counts))))
            runs.append(results)
    measured = tuple(_point(size, results) for size, results in zip(sizes, runs, strict=True))
    return LearningCurve(measured, _forecast(np.array(sizes, float), runs, rng))


def fit_head(values: np.ndarray, classes: np.ndarray) -> Pipeline:
    """A linear head on standardised features (N, C), fitted to class indices (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=_MOST_ITERATIONS)
    return make_pipeline(StandardScaler(), model).fit(values, classes)


def project(features: Features, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A map: which of the images are shown (M,) and their places (M, 2) in 0..1, alike ones near each other (t-SNE)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    shown = np.arange(len(features))
    if len(shown) > _MOST_MAPPED:
        shown = np.sort(np.random.default_rng(seed).choice(shown, _MOST_MAPPED, replace=False))
    values = features.values[shown]
    if len(shown) < 5:
        return shown, np.full((len(shown), 2), 0.5)
    reduced = PCA(min(50, *values.shape), random_state=seed).fit_transform(values)
    places = TSNE(perplexity=min(30, (len(shown) - 1) / 3), init="pca", random_state=seed).fit_transform(reduced)
    low, high = places.min(axis=0), places.max(axis=0)
    return shown, (places - low) / np.maximum(high - low, 1e-9)


def _folds(features: Features) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Stratified folds that keep groups whole; as many as the smallest class has groups, at most `FOLDS`."""
    from sklearn.model_selection import StratifiedGroupKFold

    per_class = [len(np.unique(features.groups[features.classes == label])) for label in np.unique(features.classes)]
    count = min(FOLDS, *per_class) if len(per_class) > 1 else 0
    if count < 2:
        return None
    split = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    return list(split.split(features.values, features.classes, features.groups))


def _stratified(classes: np.ndarray, rows: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """A share of some rows, class by class, at least one of each."""
    parts = []
    for label in np.unique(classes[rows]):
        own = rng.permutation(rows[classes[rows] == label])
        parts.append(own[: max(1, round(fraction * len(own)))])
    return np.concatenate(parts)


def _point(images: int, results: list[float]) -> CurvePoint:
    mean = float(np.mean(results))
    half = 1.96 * float(np.std(results, ddof=1)) / len(results) ** 0.5 if len(results) > 1 else 0.0
    return CurvePoint(images, mean, max(0.0, mean - half), min(1.0, mean + half))


def _forecast(sizes: np.ndarray, runs: list[list[float]], rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    if len(sizes) < 3:
        return ()
    wanted = sizes[-1] * np.array(_FORECAST)
    found = []
    for _ in range(100):
        means = np.array([np.mean(rng.choice(results, len(results))) for results in runs])
        found.append(_fit(sizes, means, wanted))
    low, middle, high = np.percentile(found, [2.5, 50, 97.5], axis=0)
    return tuple(
        CurvePoint(int(size), float(mid), float(under), float(over))
        for size, under, mid, over in zip(wanted, low, middle, high, strict=True)
    )


def _fit(sizes: np.ndarray, accuracies: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The best a - b * n^-c with 0 <= b, a <= 1, over a grid of exponents."""
    best, answer = np.inf, np.full(len(wanted), accuracies[-1])
    for exponent in np.linspace(0.1, 1.5, 29):
        powers = (sizes / sizes[-1]) ** -exponent
        slope, top = np.polyfit(powers, accuracies, 1)
        if slope > 0:
            slope, top = 0.0, float(accuracies.mean())
        if top > 1.0:
            slope, top = float(((accuracies - 1.0) * powers).sum() / (powers**2).sum()), 1.0
        error = float(((top + slope * powers - accuracies) ** 2).sum())
        if error < best:
            best, answer = error, top + slope * (wanted / sizes[-1]) ** -exponent
    return answer.clip(0, 1)
