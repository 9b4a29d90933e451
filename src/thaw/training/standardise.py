"""The standardisation of a head on all stages, fitted before anything is trained and fixed from then on."""

from __future__ import annotations

import numpy as np
import torch

from thaw.classifier.classifier import Classifier
from thaw.training.head_solver import feature_scales
from thaw.training.sources import Source

_IMAGES, _BATCH = 2048, 64


def fit_standardisation(classifier: Classifier, position: int, source: Source) -> None:
    """Fit the head's standardisation, if it has one, to the training images of a source at a cut, at most 2,048."""
    if not classifier.head.is_standardised:
        return
    backbone, parts = classifier.backbone.eval(), []
    chosen = np.linspace(0, len(source) - 1, min(_IMAGES, len(source))).astype(int)
    for start in range(0, len(chosen), _BATCH):
        inputs, _ = source.batch(chosen[start : start + _BATCH], epoch=0)
        with torch.no_grad():
            parts.append(backbone.advance(inputs, position, backbone.head_position).for_head())
    deviation, mean = torch.std_mean(torch.cat(parts), dim=0, correction=0)
    classifier.head.standardise(mean, feature_scales(deviation, backbone.feature_groups))
