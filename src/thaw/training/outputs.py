"""The classifier's outputs for everything in a source, in eval mode and in the order of the source."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.features.torch_runner import Precision, autocast
from thaw.training.sources import Source, batches

_BATCH = 64


def probabilities_at(
    classifier: Classifier, position: int, source: Source, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, classes) float32 for the inputs of a source at a cut, and its targets."""
    parts = [
        (probabilities.cpu().numpy(), targets.cpu().numpy())
        for _, probabilities, targets in _outputs(classifier, position, source, precision)
    ]
    probabilities, targets = map(np.concatenate, zip(*parts, strict=True))
    return probabilities, targets


def outputs_at(classifier: Classifier, position: int, source: Source, precision: Precision) -> LabelledOutputs:
    """Pooled features of the last stage, probabilities and targets for the inputs of a source at a cut."""
    parts = [
        tuple(part.cpu().numpy() for part in (pooled.float(), probabilities, targets))
        for pooled, probabilities, targets in _outputs(classifier, position, source, precision)
    ]
    return LabelledOutputs(*map(np.concatenate, zip(*parts, strict=True)))


def _outputs(
    classifier: Classifier, position: int, source: Source, precision: Precision
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pooled features, probabilities and targets, batch by batch."""
    classifier.eval()
    top = classifier.backbone.head_position
    for inputs, targets in batches(source, _BATCH, epoch=0, shuffle_seed=None):
        with torch.no_grad(), autocast(classifier.device, precision):
            at_head = classifier.backbone.advance(inputs, position, top)
            probabilities = classifier.probabilities(classifier.head(at_head.for_head()))
        yield at_head.values, probabilities, targets
