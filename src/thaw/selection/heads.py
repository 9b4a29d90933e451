"""Heads fitted on the features of a sample, in folds: what a setting of head, weights or views gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from thaw.backbones.contract import Features
from thaw.recipe import ClassWeights, Task
from thaw.selection.logistic import Design, Labels, out_of_fold
from thaw.training.head_solver import feature_scales
from thaw.training.loss import class_weights


@dataclass(frozen=True)
class HeadSetting:
    """What varies between the heads that are compared."""

    features: Features
    weights: ClassWeights


@dataclass(frozen=True)
class StageFeatures:
    """Features of all stages of N images.

    Attributes:
        views: (N, D) float32 of each view, the plain one first.
        widths: How many of the D features belong to each stage, from the pixels up.
    """

    views: tuple[np.ndarray, ...]
    widths: tuple[int, ...]

    def design(self, features: Features) -> Design:
        """What a head on the last or on all stages is fitted to, standardised as in training, by the plain views."""
        widths = self.widths if features == "all" else self.widths[-1:]
        views = [torch.from_numpy(view[:, view.shape[1] - sum(widths) :]) for view in self.views]
        deviation, mean = torch.std_mean(views[0], dim=0, correction=0)
        scales = feature_scales(deviation, widths)
        return Design.of([(view - mean) / scales for view in views])


def predict_folds(
    features: StageFeatures, setting: HeadSetting, targets: np.ndarray, folds: np.ndarray, classes: int, task: Task
) -> np.ndarray:
    """Probabilities (N, C) of each image by a head that was fitted without its fold; NaN where it is in none."""
    weights = class_weights(targets, classes, task, setting.weights)
    labels = Labels(targets, folds, classes, task, None if weights is None else weights.numpy())
    return out_of_fold(features.design(setting.features), labels)
