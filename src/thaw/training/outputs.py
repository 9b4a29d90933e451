"""The classifier's outputs for everything in a source, in eval mode and in the order of the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.features.torch_runner import Precision, autocast
from thaw.processes import ALONE, Process
from thaw.training.sources import Batch, Source, global_batches, read

_BATCH = 64


def probabilities_at(
    classifier: Classifier, position: int, source: Source, precision: Precision, process: Process = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, classes) float32 for the inputs of a source at a cut, and its targets.

    Several processes compute a part each, batch by batch as one process would, and all get the whole.
    """
    probabilities = torch.zeros(len(source), len(classifier.classes), device=classifier.device)
    # Whole batches, whose bits do not depend on the number of processes.
    wanted = global_batches(len(source), _BATCH, epoch=0, shuffle_seed=None)
    wanted = [wanted[index] for index in process.part(np.arange(len(wanted)))]
    outputs = _outputs(classifier, position, read(source, wanted, epoch=0), precision)
    for chosen, (_, found, _) in zip(wanted, outputs, strict=True):
        probabilities[chosen[0] : chosen[0] + len(chosen)] = found
    return process.total(probabilities).cpu().numpy(), source.targets.cpu().numpy()


def outputs_at(classifier: Classifier, position: int, source: Source, precision: Precision) -> LabelledOutputs:
    """Pooled features of the last stage, probabilities and targets for the inputs of a source at a cut."""
    batches = read(source, global_batches(len(source), _BATCH, epoch=0, shuffle_seed=None), epoch=0)
    parts = [
        tuple(part.cpu().numpy() for part in (pooled.float(), probabilities, targets))
        for pooled, probabilities, targets in _outputs(classifier, position, batches, precision)
    ]
    return LabelledOutputs(*map(np.concatenate, zip(*parts, strict=True)))


def _outputs(
    classifier: Classifier, position: int, batches: Iterable[Batch], precision: Precision
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pooled features, probabilities and targets, batch by batch."""
    classifier.eval()
    top = classifier.backbone.head_position
    for inputs, targets in batches:
        with torch.no_grad(), autocast(classifier.device, precision):
            at_head = classifier.backbone.advance(inputs, position, top)
            probabilities = classifier.probabilities(classifier.head(at_head.for_head()))
        yield at_head.values, probabilities, targets
