"""A linear head on frozen features under cross-validation: how well they separate the classes, without fine-tuning.

Every prediction is made for images that the model was not fitted on; near-duplicates are always in the same fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thaw.data.stratified import divided, tested_in
from thaw.formats import count, listed

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FOLDS = 5
TOO_FEW = "fewer than two classes have two images (near-duplicates, and images of one group, count once)"
"""Why nothing can be cross-validated."""

MOST_IMAGES = 10_000
"""Images that heads and nearest neighbours are fitted on; of more, on a sample."""

_MOST_PROBABILITIES = 200 * MOST_IMAGES
"""Images times classes; of more than 200 classes the sample is smaller, down to one image for each fold."""

NEIGHBOURS = 5
INVERSE_REGULARISATION = 0.003
"""Of the logistic regression on standardised features. Measured on three sets with MobileNetV2: 0.01 is up to 1.5
points more accurate, 0.001 finds label errors up to 9 points better (average precision)."""

_MAX_ITERATIONS = 200
_CLASSES_SHOWN = 5


@dataclass(frozen=True)
class Features:
    """Pooled features of the readable images.

    Attributes:
        rows: (N,) int, their rows in the manifest.
        values: (N, C) float32.
        classes: (N,) int, class indices.
        groups: (N,) int, equal for images that must be in the same fold.
    """

    rows: np.ndarray
    values: np.ndarray
    classes: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class LinearProbe:
    """Cross-validated accuracies, 0..1, of the images that are tested.

    Attributes:
        accuracy, balanced_accuracy: Of the linear head.
        knn_accuracy: Of the k nearest neighbours by cosine distance.
        majority_accuracy: Of always predicting the largest class.
        probabilities: (N, classes) float32, each row from a head fitted without it and without its group.
        tested: (N,) bool, whether there are such; the other images are of classes that are in one fold only.
        untested: The images of each class, by its index, that are not tested.
        sample: How many images heads and neighbours are fitted on, all folds together; `None` for all of them.
    """

    folds: int
    accuracy: float
    balanced_accuracy: float
    knn_accuracy: float
    majority_accuracy: float
    probabilities: np.ndarray
    tested: np.ndarray
    untested: Mapping[int, int]
    sample: int | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread within the block: with samples this small, more threads mostly wait."""
    # Only libraries that are already loaded can be limited.
    import sklearn.linear_model  # noqa: F401
    import sklearn.manifold  # noqa: F401
    import sklearn.neighbors  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def nothing() -> None:
    """Ignore that a step is done."""


def fit_probe(features: Features, on_step: Callable[[], None] = nothing) -> LinearProbe | None:
    """Fit and test a linear head and nearest neighbours on every fold.

    Of many images they are fitted on a sample, as `sample_of` takes it. The head is tested on all images all the same,
    nearest neighbours on a sample.

    Args:
        features: Features of the data set.
        on_step: Called after each fold.

    Returns:
        The accuracies, or `None` where fewer than two classes have two images or groups.
    """
    from sklearn.neighbors import KNeighborsClassifier

    folds = stratified_folds(features.classes, features.groups)
    if folds is None:
        return None
    values, classes = features.values, features.classes
    probabilities = np.zeros((len(features), int(classes.max()) + 1), np.float32)
    knn_correct: list[np.ndarray] = []
    number = int(folds.max()) + 1
    for train, test in divided(folds, number):
        fitted, asked = sample_of(features, train), sample_of(features, test)
        head = fit_head(values[fitted], classes[fitted])
        probabilities[np.ix_(test, head.classes_)] = head.predict_proba(values[test])
        knn = KNeighborsClassifier(min(NEIGHBOURS, len(fitted)), metric="cosine")
        knn_correct.append(knn.fit(values[fitted], classes[fitted]).predict(values[asked]) == classes[asked])
        on_step()
    tested, is_correct = folds >= 0, probabilities.argmax(axis=1) == classes
    recalls = [is_correct[tested & (classes == label)].mean() for label in np.unique(classes[tested])]
    return LinearProbe(
        folds=number,
        accuracy=float(is_correct[tested].mean()),
        balanced_accuracy=float(np.mean(recalls)),
        knn_accuracy=float(np.concatenate(knn_correct).mean()),
        majority_accuracy=float(np.bincount(classes[tested]).max() / tested.sum()),
        probabilities=probabilities,
        tested=tested,
        untested=untested_images(classes, folds),
        sample=most_images(classes) if len(features) > most_images(classes) else None,
    )


def most_images(classes: np.ndarray) -> int:
    """About how many images of these classes (N,) heads are fitted on: fewer where there are many classes."""
    number = len(np.unique(classes))
    return max(min(MOST_IMAGES, _MOST_PROBABILITIES // number), FOLDS * number)


def sample_of(features: Features, rows: np.ndarray) -> np.ndarray:
    """Of the positions (M,): all, or a random part of each class that would make `most_images` of all images."""
    fraction = most_images(features.classes) / len(features)
    if fraction >= 1:
        return rows
    return stratified_subset(features.classes, rows, fraction, np.random.default_rng(0), least=FOLDS)


def stratified_subset(
    classes: np.ndarray, rows: np.ndarray, fraction: float, rng: np.random.Generator, least: int = 1
) -> np.ndarray:
    """A random fraction of the rows (M,) of each class of `classes` (N,), at least so many where there are."""
    parts = []
    for label in np.unique(classes[rows]):
        members = rng.permutation(rows[classes[rows] == label])
        parts.append(members[: max(least, round(fraction * len(members)))])
    return np.concatenate(parts)


def fit_head(values: np.ndarray, classes: np.ndarray) -> Pipeline:
    """Logistic regression on standardised features (N, C), fitted to class indices (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=_MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), model).fit(values, classes)


def stratified_folds(classes: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """The fold in which each image is tested, (N,) int: stratified, with groups kept together.

    There are as many folds as two classes can fill, at most `FOLDS`. Images of a class that is in one fold only are in
    none, -1, and are trained on in all.

    Args:
        classes: (N,) int.
        groups: (N,) int, equal for images that must be in the same fold.
        seed: Of the order of equally suitable images.

    Returns:
        The folds; `None` where fewer than two classes have two groups.
    """
    per_class = sorted(len(np.unique(groups[classes == label])) for label in np.unique(classes))
    number = min(FOLDS, per_class[-2]) if len(per_class) > 1 else 0
    return tested_in(classes, groups, number, seed) if number > 1 else None


def untested_images(classes: np.ndarray, folds: np.ndarray) -> dict[int, int]:
    """The images of each class (N,) int that are in no fold (N,) int: {class: images}."""
    names, images = np.unique(classes[folds < 0], return_counts=True)
    return dict(zip(names.tolist(), images.tolist(), strict=True))


def untested_sentence(images: Mapping[str, int]) -> str:
    """Which classes are not tested because they are in one fold only, such as `burr has 1 image: not tested`."""
    few = [f"{name} has {count(number, 'image')}" for name, number in images.items()]
    joint = " that must not be divided" if max(images.values()) > 1 else ""
    return f"{listed(few, _CLASSES_SHOWN)}{joint}: not tested"
