"""The classifier of a finished run: what it says about an image, and why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from thaw.bundle import certified_bundle
from thaw.classifier.classifier import Classifier
from thaw.errors import BackboneError
from thaw.evaluation.explain import class_maps
from thaw.evaluation.overlays import as_png, overlay
from thaw.prediction.predict import Prediction, to_predictions, view_of
from thaw.prediction.predictor import reference_predictor
from thaw.run_folder import RunFolder


@dataclass(frozen=True)
class TriedImage:
    """An image that was classified.

    Attributes:
        classes: Of the run.
        prediction: Label, probabilities, and whether it is flagged for review.
        view: What the network sees, PNG.
        explained: The class that the evidence is for: the likeliest label, or the most likely class where none is
            predicted.
        evidence: The same with a map of the evidence for this class, PNG; empty for a network without maps.
    """

    classes: tuple[str, ...]
    prediction: Prediction
    view: bytes
    explained: str
    evidence: bytes


def classify(run: RunFolder, data: bytes) -> TriedImage:
    """Classify an encoded image.

    Raises:
        UnreadableImage: It cannot be decoded.
        BundleError: The bundle of the run is damaged.
    """
    classifier = classifier_of(run)
    pixels = np.stack([view_of(classifier, data)])
    outputs = reference_predictor(classifier).outputs(pixels)
    (prediction,) = to_predictions(classifier, [Path()], outputs)
    top = classifier.decision.top_labels(outputs.probabilities, classifier.task)
    try:
        evidence = _drawn(classifier, pixels, top)
    except BackboneError:
        evidence = b""
    return TriedImage(classifier.classes, prediction, as_png(pixels[0]), classifier.classes[int(top[0])], evidence)


def evidence(run: RunFolder, data: bytes, label: str) -> bytes:
    """An image with a map of the evidence for a class, as PNG.

    Args:
        run: A finished run.
        data: The encoded image.
        label: One of the classes of the run.

    Raises:
        UnreadableImage: The image cannot be decoded.
        BackboneError: The network has no maps.
        BundleError: The bundle of the run is damaged.
        LookupError: The run has no such class.
    """
    classifier = classifier_of(run)
    if label not in classifier.classes:
        raise LookupError("the run has no such class")
    return _drawn(classifier, np.stack([view_of(classifier, data)]), np.array([classifier.classes.index(label)]))


def _drawn(classifier: Classifier, pixels: np.ndarray, classes: np.ndarray) -> bytes:
    (class_map,) = class_maps(classifier, pixels, classes)
    return as_png(overlay(pixels[0], class_map))


def classifier_of(run: RunFolder) -> Classifier:
    """The classifier of a finished run, which stays in memory until another one is asked for; do not change it."""
    return _classifier(run.model)


@lru_cache(maxsize=1)
def _classifier(bundle: Path) -> Classifier:
    return certified_bundle(bundle)
