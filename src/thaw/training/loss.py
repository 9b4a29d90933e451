"""The loss of each task, and how much each class weighs in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from thaw.recipe import Task

Loss = Callable[[Tensor, Tensor], Tensor]

IMBALANCE = 3.0


def make_loss(task: Task, class_weights: Tensor | None, label_smoothing: float) -> Loss:
    """The function `(logits, targets) -> scalar`.

    multiclass: softmax cross-entropy on logits (N, C), targets (N,) int64. binary: sigmoid cross-entropy on logits
    (N, 1), targets (N,) of 0 or 1. multilabel: sigmoid cross-entropy on logits (N, C), targets (N, C) of 0 or 1.
    `class_weights` is (C,), or (2,) for binary; for multilabel it weighs the positive side of each label.
    """

    def multiclass(logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing)

    def binary(logits: Tensor, targets: Tensor) -> Tensor:
        wanted = _smooth(targets.to(logits.dtype), label_smoothing)
        losses = functional.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction="none")
        if class_weights is None:
            return losses.mean()
        weights = class_weights[targets.long()]
        return (losses * weights).sum() / weights.sum()

    def multilabel(logits: Tensor, targets: Tensor) -> Tensor:
        wanted = _smooth(targets.to(logits.dtype), label_smoothing)
        return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=class_weights)

    return {"multiclass": multiclass, "binary": binary, "multilabel": multilabel}[task]


def imbalance(targets: np.ndarray, classes: int) -> float:
    """Largest class count divided by the smallest that is not zero; 1 is perfectly balanced."""
    counts = class_counts(targets, classes)
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def balanced_weights(targets: np.ndarray, classes: int, task: Task) -> Tensor:
    """Weights that make every class count the same: N / (C * count); for multilabel negatives / positives, at most 20.

    The first is scikit-learn's `class_weight="balanced"` (King & Zeng 2001). A class without images weighs 1.
    """
    counts = class_counts(targets, classes)
    if task == "multilabel":
        weights = np.clip((len(targets) - counts) / np.maximum(counts, 1), 1 / 20, 20)
    else:
        weights = len(targets) / (classes * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, weights, 1.0).astype(np.float32))


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """Images of each class, (C,)."""
    if targets.ndim == 2:
        return targets.sum(axis=0)
    return np.bincount(targets, minlength=classes)


def _smooth(targets: Tensor, amount: float) -> Tensor:
    return targets * (1.0 - amount) + 0.5 * amount
