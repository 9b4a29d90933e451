"""Pixels to probabilities through the fastest engine of this machine, and how that engine is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import ModelOutputs
from thaw.data.geometry import PixelSpec
from thaw.errors import RecipeError
from thaw.features.engines import FrozenPart, in_fp32, reference_of, required, unusable
from thaw.features.pooled import PROBE_IMAGES
from thaw.features.probe import ExtractionJob, choose_engine
from thaw.formats import count
from thaw.recipe import Engine

BATCH = 32
"""Images per batch. The last bits of a probability depend on which images share a batch, so it is the same on every
machine."""

MIN_IMAGES_TO_PROBE = 100
"""For fewer images no engine is timed and plain PyTorch is used. Building the two engines of OpenVINO, imports
included, took 4 s of one core for MobileNetV2 and 5 s for ResNet50; meanwhile plain PyTorch on 2 cores would have
classified 90 images (24 per second) and 60 (11 per second). From here on the probe considers the time that the images
take."""

MAX_DIFFERENCE = 0.01
"""Largest accepted difference between a probability of an engine and fp32 PyTorch's, on images of the user's own."""


def spec_for(classifier: Classifier, image_size: int | None) -> PixelSpec:
    """The geometry of the input, with another side in pixels where one is given."""
    spec = classifier.backbone.facts.pixels
    return replace(spec, size=image_size or spec.size)


class Predictor:
    """Runs the backbone through one engine, and the head on its features in fp32 PyTorch."""

    def __init__(
        self,
        classifier: Classifier,
        engine: Engine,
        device: torch.device,
        mirrored: bool = False,
        image_size: int | None = None,
    ) -> None:
        """Move the classifier to the device and build the engine with its current weights.

        Args:
            classifier: The classifier.
            engine: What runs the backbone.
            device: Where everything runs.
            mirrored: Average the features of an image with those of its mirror image, at twice the cost.
            image_size: Side of the input in pixels; by default the size that the classifier was trained at.

        Raises:
            RecipeError: The engine cannot run here.
        """
        if problem := unusable(engine, classifier.backbone, device):
            raise RecipeError(f"engine: {engine} {problem}")
        self.classifier = classifier.to(device)
        self.engine = engine
        self.mirrored = mirrored
        self.pixel_spec = spec_for(classifier, image_size)
        self._device = device
        head = classifier.backbone.head_position
        self._runner = FrozenPart(classifier.backbone, device, engine, self.pixel_spec.size).runner([head])

    def with_engine(self, engine: Engine) -> Predictor:
        """The same predictor on another engine; raises `RecipeError` if that cannot run here."""
        return Predictor(self.classifier, engine, self._device, self.mirrored, self.pixel_spec.size)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) float32 of pixels (N, S, S, 3) uint8 0..255."""
        return self.outputs(pixels).probabilities

    def outputs(self, pixels: np.ndarray) -> ModelOutputs:
        """Features and probabilities of pixels (N, S, S, 3) uint8 0..255."""
        with torch.inference_mode():
            at_head = self._at_head(pixels)
            if self.mirrored:
                other = self._at_head(np.ascontiguousarray(pixels[:, :, ::-1]))
                at_head = AtCut(*((one + two) / 2 for one, two in zip(at_head, other, strict=True)))
            probabilities = self.classifier.probabilities(self.classifier.head(at_head.for_head()))
            return ModelOutputs(at_head.values.cpu().numpy(), probabilities.cpu().numpy())

    def _at_head(self, pixels: np.ndarray) -> AtCut:
        """What lies at the head, float32 on the device."""
        (at_head,) = self._runner.run(torch.from_numpy(pixels))
        return AtCut(at_head.values.flatten(1), at_head.stages).to(self._device)


def reference_predictor(
    classifier: Classifier, device: torch.device | None = None, mirrored: bool = False, image_size: int | None = None
) -> Predictor:
    """The predictor whose probabilities define those of a classifier, by default on the device of its weights."""
    engine = reference_of(classifier.backbone)
    return Predictor(classifier, engine, device or classifier.device, mirrored, image_size)


@dataclass(frozen=True)
class PredictorChoice:
    """A predictor, and one sentence on why its engine was chosen."""

    predictor: Predictor
    reason: str


def choose_predictor(
    reference: Predictor, wanted: Literal["auto"] | Engine, pixels: np.ndarray, images: int, cache: Path
) -> PredictorChoice:
    """The predictor on the fastest engine that agrees with the reference, which is the only one in int8.

    An engine whose probabilities differ by more than `MAX_DIFFERENCE` is replaced by its fp32 variant, or by PyTorch.

    Args:
        reference: The predictor on the engine that defines the probabilities.
        wanted: The engine to use if it agrees, or "auto" to time them.
        pixels: Some of the images, (N, S, S, 3) uint8.
        images: How many images will be classified.
        cache: Folder that remembers timings.

    Raises:
        RecipeError: The wanted engine cannot run here.
    """
    if wanted in ("auto", reference.engine) and reference.classifier.backbone.facts.int8:
        return PredictorChoice(reference, "the weights are in int8, which it computes in integers")
    if wanted != "auto":
        with required(f"engine: {wanted}"):
            return _checked(reference, wanted, "as requested", pixels)
    if images < MIN_IMAGES_TO_PROBE:
        return PredictorChoice(reference, f"{count(images, 'image')}; engines are timed from {MIN_IMAGES_TO_PROBE} on")
    if not len(pixels):
        return PredictorChoice(reference, "no image can be read")
    backbone, sample = reference.classifier.backbone, torch.from_numpy(pixels[:PROBE_IMAGES])
    job = ExtractionJob(backbone, reference.classifier.device, [backbone.head_position], sample, images)
    probe = choose_engine(job, "auto", cache)
    return _checked(reference, probe.engine, probe.reason, pixels)


def _checked(reference: Predictor, engine: Engine, reason: str, pixels: np.ndarray) -> PredictorChoice:
    """The predictor on an engine if it agrees on these pixels, else on its fp32 variant, else the reference."""
    for name in dict.fromkeys((engine, in_fp32(engine))):
        if name == reference.engine:
            break
        predictor = reference.with_engine(name)
        difference = max_difference(predictor, reference, pixels)
        measured = (
            f"its probabilities differ from fp32 PyTorch's by up to {difference:.4f} on {count(len(pixels), 'image')}"
        )
        # Written so that NaN is no agreement.
        if difference <= MAX_DIFFERENCE:
            return PredictorChoice(predictor, f"{reason}; {measured}")
        reason += f"; {name} is not used: {measured}, more than {MAX_DIFFERENCE}"
    return PredictorChoice(reference, reason)


def max_difference(one: Predictor, other: Predictor, pixels: np.ndarray) -> float:
    """Largest difference between the probabilities of two predictors for pixels (N, S, S, 3) uint8."""
    if not len(pixels):
        return 0.0
    return float(np.abs(one.probabilities(pixels) - other.probabilities(pixels)).max())
