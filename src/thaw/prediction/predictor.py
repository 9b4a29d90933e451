"""Pixels to probabilities through the engine that this machine runs fastest, and how that engine is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import ModelOutputs
from thaw.errors import RecipeError
from thaw.features.engines import ENGINES, REFERENCE, FrozenPart, in_fp32, missing
from thaw.features.probe import choose_engine
from thaw.recipe import Engine

BATCH = 32
"""Images that go through an engine at once. Which images share a batch decides the last bits of a probability, so it
is the same on every machine."""

PLAIN_BELOW = 100
"""Fewer images than this run in plain PyTorch and nothing is measured. Building the two engines of OpenVINO, imports
included, took 4 s of one core for MobileNetV2 and 5 s for ResNet50; meanwhile plain PyTorch on 2 cores would have
classified 90 images (24 a second) and 60 (11 a second). From there on the probe weighs the time that the images take.
"""

PROBED = 16
"""Images that engines are timed with."""

LARGEST_GAP = 0.01
"""Probability by which an engine may differ from fp32 PyTorch on images of the user's own."""


class Predictor:
    """Runs the backbone through one engine, and the head on its pooled features in fp32 PyTorch."""

    def __init__(self, classifier: Classifier, engine: Engine, device: torch.device, mirrored: bool = False) -> None:
        """Move the classifier to the device and build the engine with the weights that it holds now.

        With `mirrored` the features of an image are averaged with those of its mirror image, at twice the work.
        Raises `RecipeError` where the engine cannot run here.
        """
        if problem := missing(engine, device):
            raise RecipeError(f"engine: {engine} {problem}")
        self.classifier = classifier.to(device)
        self.engine = engine
        self.mirrored = mirrored
        self._device = device
        self._top = classifier.backbone.head_position
        self._runner = FrozenPart(classifier.backbone, device, engine).runner([self._top])

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) float32 for pixels (N, S, S, 3) uint8 0..255."""
        return self.answers(pixels).probabilities

    def answers(self, pixels: np.ndarray) -> ModelOutputs:
        """Features and probabilities for pixels (N, S, S, 3) uint8 0..255."""
        with torch.inference_mode():
            features = self.features(pixels)
            probabilities = self.classifier.probabilities(self.classifier.head(features))
            return ModelOutputs(features.float().cpu().numpy(), probabilities.cpu().numpy())

    def features(self, pixels: np.ndarray) -> torch.Tensor:
        """Pooled features (N, width) float32 on the device for pixels (N, S, S, 3) uint8 0..255."""
        if self.mirrored:
            return (self._features(pixels) + self._features(np.ascontiguousarray(pixels[:, :, ::-1]))) / 2
        return self._features(pixels)

    def _features(self, pixels: np.ndarray) -> torch.Tensor:
        count = len(pixels)
        if ENGINES[self.engine].fixed_batch and count < BATCH:
            # A compiled network is compiled anew for every other number of images.
            pixels = np.concatenate([pixels, np.zeros((BATCH - count, *pixels.shape[1:]), np.uint8)])
        (features,) = self._runner.run(torch.from_numpy(pixels))
        return features.flatten(1)[:count].to(self._device)


@contextmanager
def at_image_size(classifier: Classifier, size: int | None) -> Iterator[None]:
    """Let a classifier see pictures of another side than it was trained at, in pixels, within the block."""
    backbone = classifier.backbone
    trained = backbone.facts
    backbone.facts = replace(trained, pixels=replace(trained.pixels, size=size or trained.pixels.size))
    try:
        yield
    finally:
        backbone.facts = trained


@dataclass(frozen=True)
class PredictorChoice:
    """A predictor, and one sentence that says why its engine was chosen."""

    predictor: Predictor
    reason: str


def choose_predictor(
    classifier: Classifier,
    wanted: Literal["auto"] | Engine,
    device: torch.device,
    pixels: np.ndarray,
    images: int,
    cache: Path,
) -> PredictorChoice:
    """The predictor of the fastest engine that agrees with fp32 PyTorch, to classify so many `images`.

    `pixels` are some of them, (N, S, S, 3) uint8. An engine, wanted or found, whose probabilities for these differ by
    more than `LARGEST_GAP` gives way to fp32. Raises `RecipeError` where a wanted engine cannot run here.
    """
    plain = Predictor(classifier, REFERENCE, device)
    if wanted != "auto":
        return _agreeing(plain, wanted, "as asked", pixels)
    if images < PLAIN_BELOW:
        return PredictorChoice(plain, f"{images} images, and a faster engine is looked for from {PLAIN_BELOW}")
    if not len(pixels):
        return PredictorChoice(plain, "no image can be read")
    backbone, sample = classifier.backbone, torch.from_numpy(pixels[:PROBED])
    probe = choose_engine(backbone, device, "auto", [backbone.head_position], sample, images, cache)
    return _agreeing(plain, probe.engine, probe.reason, pixels)


def _agreeing(plain: Predictor, engine: Engine, reason: str, pixels: np.ndarray) -> PredictorChoice:
    """The predictor of an engine if it agrees on these pixels, else of its fp32 sibling, else plain PyTorch."""
    for name in dict.fromkeys((engine, in_fp32(engine))):
        if name == REFERENCE:
            break
        predictor = Predictor(plain.classifier, name, plain.classifier.device)
        gap = gap_between(predictor, plain, pixels)
        figures = f"its probabilities of the first {len(pixels)} images differ from fp32 PyTorch's by {gap:.4f}"
        # Written so that a gap that is not a number is no agreement.
        if gap <= LARGEST_GAP:
            return PredictorChoice(predictor, f"{reason}; {figures}")
        reason += f"; {name} is not used, {figures}, and at most {LARGEST_GAP} may be"
    return PredictorChoice(plain, reason)


def gap_between(one: Predictor, other: Predictor, pixels: np.ndarray) -> float:
    """Largest difference between the probabilities that two predictors give for pixels (N, S, S, 3) uint8."""
    if not len(pixels):
        return 0.0
    return float(np.abs(one.probabilities(pixels) - other.probabilities(pixels)).max())
