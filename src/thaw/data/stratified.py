"""Folds with the same fraction of every class, in which images that belong together stay together."""

from __future__ import annotations

import numpy as np

_MANY_COUNTS = 2_000_000
"""Groups times classes, above which a table of the images of each class in each group takes minutes and gigabytes."""


def stratified_group_folds(
    classes: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide images into folds: group after group goes where the classes are then most evenly spread.

    The groups whose classes are the least even come first, those that are equal in this in random order. Of folds that
    are equally good the one with the fewest images is taken. The folds are those of `StratifiedGroupKFold` of
    scikit-learn with `shuffle=True`, found nine times as fast (0.03 s for 1,000 images) and without its import of a
    second; of many images and classes they may be others that are as even.

    Args:
        classes: (N,) int, the class of each image. A class may have fewer images than there are folds.
        groups: (N,) int, equal for images that must be in the same fold.
        folds: How many, at most as many as there are groups.
        seed: Of the random order.

    Returns:
        For each fold the positions of the images outside of it and in it, ascending.
    """
    _, class_of, class_sizes = np.unique(classes, return_inverse=True, return_counts=True)
    names, group_of = np.unique(groups, return_inverse=True)
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    place_of = np.argsort(order)[group_of]
    assign = _folds_by_class if len(names) * len(class_sizes) > _MANY_COUNTS else _folds
    return divided(assign(place_of, class_of, class_sizes, folds)[place_of], folds)


def _folds(place_of: np.ndarray, class_of: np.ndarray, class_sizes: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each group.

    Args:
        place_of: (N,) int, the group of each image, in the order in which they come.
        class_of: (N,) int, its class.
        class_sizes: (C,) int, images of each class.
        folds: How many.
    """
    counts = np.zeros((place_of.max() + 1, len(class_sizes)))
    np.add.at(counts, (place_of, class_of), 1)
    filled, fold_of = np.zeros((folds, len(class_sizes))), np.empty(len(counts), int)
    candidates = np.eye(folds)[:, :, None]
    for group in np.argsort(-counts.std(axis=1), kind="stable"):
        # (folds, folds, classes): what each fold would hold if the group went to each of them.
        spread = ((filled + candidates * counts[group]) / class_sizes).std(axis=1).mean(axis=1)
        fold_of[group] = _best(spread.tolist(), filled.sum(axis=1).tolist())
        filled[fold_of[group]] += counts[group]
    return fold_of


def _folds_by_class(place_of: np.ndarray, class_of: np.ndarray, class_sizes: np.ndarray, folds: int) -> np.ndarray:
    """What `_folds` gives but for rounding, from the classes that each group has alone; arguments as there."""
    number = len(class_sizes)
    cells, counts = np.unique(place_of * number + class_of, return_counts=True)
    group_of, classes = cells // number, cells % number
    sums, squares = (np.bincount(group_of, weights=weights) for weights in (counts, counts**2))
    # Of the counts of all classes, most of which are zero.
    variance = squares / number - (sums / number) ** 2
    starts = np.searchsorted(group_of, np.arange(len(sums) + 1))
    filled, images, fold_of = np.zeros((folds, number)), np.zeros(folds), np.empty(len(sums), int)
    deviation, total = np.zeros(number), 0.0
    candidates = np.eye(folds)[:, :, None]
    for group in np.argsort(-variance, kind="stable"):
        part = slice(starts[group], starts[group + 1])
        own, added = classes[part], counts[part]
        # (folds, classes of the group): how evenly each would be spread, in place of how it is.
        spread = ((filled[:, own] + candidates * added) / class_sizes[own]).std(axis=1)
        means = (total - deviation[own].sum() + spread.sum(axis=1)) / number
        best = fold_of[group] = _best(means.tolist(), images.tolist())
        total += spread[best].sum() - deviation[own].sum()
        deviation[own] = spread[best]
        filled[best, own] += added
        images[best] += added.sum()
    return fold_of


def divided(fold_of: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each of the first folds the positions of the images outside of it and in it, ascending.

    Args:
        fold_of: (N,) int, the fold of each image; -1 for one that is in none.
        folds: How many of the folds.
    """
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(folds)]


def tested_in(classes: np.ndarray, groups: np.ndarray, folds: int, seed: int = 0) -> np.ndarray | None:
    """(N,) int from 0, the fold of `stratified_group_folds` in which each image is tested.

    An image whose class is in no other fold is in none, -1: it is only trained on, as nothing else tells what its class
    looks like. `None` where that is every image.
    """
    numbers = np.full(len(classes), -1)
    for number, (train, test) in enumerate(stratified_group_folds(classes, groups, folds, seed)):
        numbers[test[np.isin(classes[test], classes[train])]] = number
    tested = numbers >= 0
    if not tested.any():
        return None
    numbers[tested] = np.unique(numbers[tested], return_inverse=True)[1]
    return numbers


def strata_of(targets: np.ndarray) -> np.ndarray:
    """What to stratify targets by: the class, or the rarest label of several plus one, 0 for none."""
    if targets.ndim == 1:
        return targets
    images = np.where(targets > 0, targets.sum(axis=0), np.inf)
    return np.where(targets.any(axis=1), images.argmin(axis=1) + 1, 0)


def _best(spread: list[float], images: list[float]) -> int:
    """The fold with the smallest spread; one with fewer images where two are equal but for rounding."""
    best = 0
    for fold in range(1, len(spread)):
        is_equal = abs(spread[fold] - spread[best]) <= 1e-8 + 1e-5 * abs(spread[best])
        if spread[fold] < spread[best] or (is_equal and images[fold] < images[best]):
            best = fold
    return best
