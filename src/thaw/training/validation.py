"""Metrics on validation after an epoch, and what the standard error of their differences follows from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.backbones.cuts import Cut
from thaw.classifier.classifier import Classifier
from thaw.metrics import METRICS, MetricValues, most_likely, values_of, values_without_each
from thaw.processes import ALONE, Process
from thaw.training.context import FitSettings
from thaw.training.outputs import probabilities_at
from thaw.training.sources import Source


@dataclass(frozen=True)
class Validated:
    """Values of the metrics, and of the monitored one without each block of images, as in `EpochRecord`."""

    values: MetricValues
    without: tuple[float, ...]


UNUSABLE = Validated(MetricValues.undefined(), ())
"""The result of an epoch without a finite loss."""


def validate(
    classifier: Classifier, cut: Cut, source: Source, settings: FitSettings, process: Process = ALONE
) -> Validated:
    """Validate the classifier on a source at a cut, in eval mode."""
    probabilities, targets = probabilities_at(classifier, cut.position, source, settings.precision, process)
    if not np.isfinite(probabilities).all():
        return UNUSABLE
    scored = most_likely(probabilities, targets, classifier.task, settings.val_groups)
    without = values_without_each(scored, METRICS[settings.monitor])
    return Validated(values_of(scored), without)
