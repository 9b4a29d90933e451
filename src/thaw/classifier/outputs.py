"""Outputs of the network, before any decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs for N images: pooled features (N, W) float32 of the last stage, and probabilities (N, C) float32.

    Only the last stage's, also where the head takes all stages: distances to training images are of what is seen, not
    of colours and textures.
    """

    features: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class LabelledOutputs:
    """Outputs for N labelled images: features (N, W) float32, probabilities (N, C), targets as in a manifest."""

    features: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray
