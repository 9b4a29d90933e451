"""Heads fitted on the features of a sample, in folds: what a setting of head, weights or views gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.facts import Features
from thaw.device import threads_restored, use_threads
from thaw.progress import OnProgress
from thaw.recipe import ClassWeights, Task
from thaw.selection.logistic import PENALTIES, Design, Labels, out_of_fold
from thaw.training.head_solver import feature_scales
from thaw.training.loss import class_weights


@dataclass(frozen=True)
class HeadSetting:
    """What varies between the heads that are compared."""

    features: Features
    weights: ClassWeights


@dataclass(frozen=True)
class Basis:
    """Standardisation as in training, and the directions of the plain view of N images, in which heads are tested.

    A head with an L2 penalty does not change when features are rotated, and of more features than images only these
    directions matter to the images themselves.

    Attributes:
        mean, scales: (D,) of the features that the head takes.
        directions: (D, K), K the smaller of N and D.
    """

    mean: Tensor
    scales: Tensor
    directions: Tensor

    @classmethod
    def of(cls, plain: np.ndarray, widths: Sequence[int], features: Features) -> Basis:
        """The basis of a head on the last or on all stages.

        Args:
            plain: (N, W) float32, features of all stages of the plain view.
            widths: How many of them belong to each stage, from the pixels up.
            features: What the head takes.
        """
        groups = widths if features == "all" else widths[-1:]
        taken = torch.from_numpy(plain[:, plain.shape[1] - sum(groups) :])
        deviation, mean = torch.std_mean(taken, dim=0, correction=0)
        scales = feature_scales(deviation, groups)
        values = (taken - mean) / scales
        images, width = values.shape
        with threads_restored():
            use_threads(1)
            if width <= images:
                return cls(mean, scales, torch.linalg.eigh(values.T @ values).eigenvectors)
            squares, vectors = torch.linalg.eigh(values @ values.T)
        lengths = squares.clamp_min(1e-9 * float(squares[-1]) or 1.0).sqrt()
        return cls(mean, scales, values.T @ (vectors / lengths))

    def design(self, views: Sequence[np.ndarray]) -> Design:
        """Views (N, W) of the same images, the plain one first, in this basis."""
        taken = [torch.from_numpy(view[:, view.shape[1] - len(self.mean) :]) for view in views]
        return Design(torch.cat([(view - self.mean) / self.scales @ self.directions for view in taken]), len(views))


def predict_folds(
    design: Design,
    weights: ClassWeights,
    targets: np.ndarray,
    folds: np.ndarray,
    classes: int,
    task: Task,
    on_progress: OnProgress = lambda done, total: None,
) -> np.ndarray:
    """Probabilities (N, C) of each image by a head that was fitted without its fold; NaN where it is in none."""
    values = class_weights(targets, classes, task, weights)
    labels = Labels(targets, folds, classes, task, None if values is None else values.numpy())
    return out_of_fold(design, labels, PENALTIES, on_progress)
