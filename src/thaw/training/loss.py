"""The loss of each task, and class weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from thaw.recipe import ClassWeights, Task

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits and targets to a scalar."""

IMBALANCE = 3.0
"""Ratio of the largest class to the smallest from which classes count as imbalanced."""


def make_loss(task: Task, class_weights: Tensor | None, label_smoothing: float) -> Loss:
    """The loss function of a task, for logits (N, outputs).

    multiclass: softmax cross-entropy, targets (N,) int64. binary: sigmoid cross-entropy of one logit, targets (N,) 0 or
    1. multilabel: mean of one sigmoid cross-entropy per label, targets (N, C) 0 or 1.

    Args:
        task: The task.
        class_weights: (C,) float32, (2,) for binary; for multilabel they weight the positive term of each label.
        label_smoothing: Fraction of the target that is spread evenly over all classes.
    """

    def multiclass(logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing)

    def binary(logits: Tensor, targets: Tensor) -> Tensor:
        smoothed = _smooth(targets.to(logits.dtype), label_smoothing)
        losses = functional.binary_cross_entropy_with_logits(logits[:, 0], smoothed, reduction="none")
        if class_weights is None:
            return losses.mean()
        weights = class_weights[targets.long()]
        return (losses * weights).sum() / weights.sum()

    def multilabel(logits: Tensor, targets: Tensor) -> Tensor:
        smoothed = _smooth(targets.to(logits.dtype), label_smoothing)
        return functional.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=class_weights)

    match task:
        case "multiclass":
            return multiclass
        case "binary":
            return binary
        case "multilabel":
            return multilabel
        case unknown:
            assert_never(unknown)


def total_weight(task: Task, class_weights: Tensor | None, targets: Tensor) -> float | Tensor:
    """What the loss of some images is a mean over: how many they are, or the sum of the weights of their classes."""
    if class_weights is None or task == "multilabel":
        return len(targets)
    return class_weights[targets.long()].sum()


def imbalance(targets: np.ndarray, classes: int) -> float:
    """Size of the largest class divided by that of the smallest one that is not empty; 1 for balanced classes."""
    counts = class_counts(targets, classes)
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def class_weights(targets: np.ndarray, classes: int, task: Task, kind: ClassWeights) -> Tensor | None:
    """Class weights (C,) float32 of a kind: balanced, their square roots, or `None` for none."""
    if kind == "none":
        return None
    balanced = balanced_weights(targets, classes, task)
    return balanced if kind == "balanced" else balanced.sqrt()


def balanced_weights(targets: np.ndarray, classes: int, task: Task) -> Tensor:
    """Class weights (C,) float32 that give every class the same total weight.

    N / (C * count), as scikit-learn's `class_weight="balanced"` (King & Zeng 2001); for multilabel negatives /
    positives, between 1/20 and 20. A class without images has weight 1.
    """
    counts = class_counts(targets, classes)
    if task == "multilabel":
        weights = np.clip((len(targets) - counts) / np.maximum(counts, 1), 1 / 20, 20)
    else:
        weights = len(targets) / (classes * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, weights, 1.0).astype(np.float32))


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """Images of each class (C,), for targets (N,) int64 or (N, C) of 0 and 1."""
    if targets.ndim == 2:
        return targets.sum(axis=0)
    return np.bincount(targets, minlength=classes)


def _smooth(targets: Tensor, amount: float) -> Tensor:
    return targets * (1.0 - amount) + 0.5 * amount
