"""What every target is built from: one traced graph from images of any size to probabilities, and its metadata."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from thaw.bundle import digest_of
from thaw.classifier.classifier import Classifier
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


@dataclass(frozen=True)
class Deployment:
    """A traced graph, the classes of its outputs in order, and the metadata that is stored with it."""

    program: torch.export.ExportedProgram
    classes: tuple[str, ...]
    metadata: Mapping[str, str]


def trace(classifier: Classifier, bundle: Path, supports_branches: bool = True) -> Deployment:
    """Trace a classifier with dynamic batch size, height and width."""
    axes = {index: torch.export.Dim(name, min=1) for index, name in enumerate(AXES)}
    model = EndToEndModel(classifier, supports_branches).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # timm warns where it branches on a size, and PyTorch about deprecated parts of itself.
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (torch.zeros(_EXAMPLE_SHAPE, dtype=torch.uint8),), dynamic_shapes=(axes,))
    return Deployment(program, classifier.classes, metadata_of(classifier, bundle))


def metadata_of(classifier: Classifier, bundle: Path) -> dict[str, str]:
    """What the exported file says about itself; `bundle_sha256` is the SHA-256 of the bundle's SHA256SUMS."""
    facts = classifier.backbone.facts
    preprocessing = {**asdict(facts.pixels), "mean": facts.mean, "std": facts.std}
    return {
        "thaw_version": __version__,
        "architecture": facts.architecture,
        "license": facts.license,
        "task": classifier.task,
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "decision": json.dumps(classifier.decision.to_json(), ensure_ascii=False),
        "input": _INPUT_DESCRIPTION,
        "preprocessing": json.dumps(preprocessing),
        "bundle_sha256": digest_of(bundle),
    }
