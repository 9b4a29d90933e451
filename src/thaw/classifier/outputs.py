"""Outputs of the network, before any decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs for N images: pooled features (N, W) float32 and probabilities (N, C) float32."""

    features: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class LabelledOutputs:
    """Outputs for N labelled images: features (N, W) float32, probabilities (N, C), targets as in a manifest."""

    features: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray
