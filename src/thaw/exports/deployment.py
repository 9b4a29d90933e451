"""What every target is built from: one traced graph from images to probabilities, and its metadata.

Most targets take images of any size, which the graph resizes; the others take images at the model's size.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.bundle import digest_of
from thaw.classifier.classifier import Classifier
from thaw.data.geometry import PixelSpec
from thaw.exports.resize import Resize
from thaw.version import __version__

INPUT, OUTPUT = "images", "probabilities"
AXES = ("batch", "height", "width")
_INPUT_DESCRIPTION = (
    "RGB images (N, H, W, 3) uint8 0..255, upright, at full size, any H and W; the model resizes, crops and normalises"
)
_EXAMPLE_SHAPE = (2, 83, 97, 3)
"""Shape of the batch that the graph is traced with; all sides differ, so that no two are confused."""


class EndToEndModel(nn.Module):
    """Images (N, H, W, 3) uint8 0..255 of any H and W to probabilities (N, classes) float32 in class order."""

    def __init__(self, classifier: Classifier, supports_branches: bool = True) -> None:
        super().__init__()
        self.resize = Resize(classifier.backbone.facts.pixels, supports_branches)
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Classify one batch."""
        return self.classifier.probabilities(self.classifier.logits(self.resize(images)))


class ModelAtSize(nn.Module):
    """Images (N, S, S, 3) 0..255 at the model's size S, resized and cropped, to probabilities as above."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Classify one batch."""
        return self.classifier.probabilities(self.classifier.logits(images))


@dataclass(frozen=True)
class Deployment:
    """A graph, the classes of its outputs in order, the metadata that is stored with it, and its bundle.

    trace: traces the graph, which takes seconds and is needed by most targets only.
    """

    trace: Callable[[], torch.export.ExportedProgram]
    classes: tuple[str, ...]
    metadata: Mapping[str, str]
    bundle: Path = Path()

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The graph, traced when it is first read."""
        return self.trace()


def deployment_of(classifier: Classifier, bundle: Path, supports_branches: bool = True) -> Deployment:
    """A classifier for images of any size, with dynamic batch size, height and width."""
    axes = {index: torch.export.Dim(name, min=1) for index, name in enumerate(AXES)}
    model = EndToEndModel(classifier, supports_branches)
    metadata = metadata_of(classifier, bundle, _INPUT_DESCRIPTION)
    return Deployment(partial(_program, model, _EXAMPLE_SHAPE, axes), classifier.classes, metadata, bundle)


def deployment_at_size(classifier: Classifier, bundle: Path) -> Deployment:
    """A classifier for images at the model's size, with dynamic batch size."""
    spec = classifier.backbone.facts.pixels
    axes = {0: torch.export.Dim(AXES[0], min=1)}
    description = (
        f"RGB images (N, {spec.size}, {spec.size}, 3) 0..255, upright; the model normalises, but does not resize: "
        f"{resizing_of(spec)}"
    )
    graph = partial(_program, ModelAtSize(classifier), (2, spec.size, spec.size, 3), axes)
    return Deployment(graph, classifier.classes, metadata_of(classifier, bundle, description), bundle)


def _program(model: nn.Module, shape: tuple[int, ...], axes: dict[int, Any]) -> torch.export.ExportedProgram:
    with torch.no_grad(), warnings.catch_warnings():
        # timm warns where it branches on a size, and PyTorch about deprecated parts of itself.
        warnings.simplefilter("ignore")
        example = (torch.zeros(shape, dtype=torch.uint8),)
        return torch.export.export(model.eval(), example, dynamic_shapes=(axes,))


def resizing_of(spec: PixelSpec) -> str:
    """How an image becomes the input of a model that takes images at its size, in words."""
    side = {"center": "the short side is", "squash": "both sides are", "border": "the long side is"}[spec.crop_mode]
    resize = f"resize so that {side} {spec.scale} pixels ({spec.interpolation} with antialiasing, as Pillow does)"
    if spec.crop_mode == "squash" and spec.scale == spec.size:
        return resize
    crop = f"{resize}, then take the central {spec.size} x {spec.size} pixels"
    if spec.crop_mode != "border" and spec.scale >= spec.size:
        return crop
    return f"{crop}; pixels beyond the image are {spec.fill}"


def metadata_of(classifier: Classifier, bundle: Path, description: str) -> dict[str, str]:
    """What the exported file says about itself; `bundle_sha256` is the SHA-256 of the bundle's SHA256SUMS.

    description: of the images that it takes.
    """
    facts, decode = classifier.backbone.facts, classifier.decode
    preprocessing = {**asdict(facts.pixels), "mean": facts.mean, "std": facts.std, "decode": decode.model_dump()}
    if decode.white_level is not None:
        description += f"; values of 16-bit and float grey images become value * 255 / {decode.white_level:g}, rounded"
    return {
        "thaw_version": __version__,
        "architecture": facts.architecture,
        "license": facts.license,
        "task": classifier.task,
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "decision": json.dumps(classifier.decision.to_json(), ensure_ascii=False),
        "input": description,
        "preprocessing": json.dumps(preprocessing),
        "bundle_sha256": digest_of(bundle),
    }
