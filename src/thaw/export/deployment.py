"""What every target is made of: one graph from images of any size to probabilities, and the facts that go with it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from thaw.classifier.classifier import Classifier
from thaw.export.resize import Resize
from thaw.version import __version__

INPUT, OUTPUT = "images", "probabilities"
AXES = ("batch", "height", "width")
_FEED = (
    "RGB images (N, H, W, 3) uint8 0..255, upright, at their full size, any H and W; "
    "the model resizes, crops and normalises"
)
_EXAMPLE = (2, 83, 97, 3)
"""The shape that the graph is recorded with; no two sides alike, so that none is taken for another."""


class Graph(nn.Module):
    """Images (N, H, W, 3) uint8 0..255 of any H and W to probabilities (N, classes) float32 in class order."""

    def __init__(self, classifier: Classifier, has_branches: bool = True) -> None:
        super().__init__()
        self.resize = Resize(classifier.backbone.facts.pixels, has_branches)
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Classify one batch."""
        return self.classifier.probabilities(self.classifier.logits(self.resize(images)))


@dataclass(frozen=True)
class Deployment:
    """A recorded graph, the classes of its outputs in order, and what is kept in the file beside it (key to text)."""

    program: torch.export.ExportedProgram
    classes: tuple[str, ...]
    facts: Mapping[str, str]


def record(classifier: Classifier, bundle: Path, has_branches: bool = True) -> Deployment:
    """The graph of a classifier, with batch, height and width left open."""
    axes = {index: torch.export.Dim(name, min=1) for index, name in enumerate(AXES)}
    graph = Graph(classifier, has_branches).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # timm warns where it branches on a size, and PyTorch of its own parts that it will replace.
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (torch.zeros(_EXAMPLE, dtype=torch.uint8),), dynamic_shapes=(axes,))
    return Deployment(program, classifier.classes, facts_of(classifier, bundle))


def facts_of(classifier: Classifier, bundle: Path) -> dict[str, str]:
    """What a person who finds the file wants to know; `bundle_sha256` is that of the bundle's SHA256SUMS."""
    facts = classifier.backbone.facts
    preprocessing = {**asdict(facts.pixels), "mean": facts.mean, "std": facts.std}
    return {
        "thaw_version": __version__,
        "architecture": facts.architecture,
        "license": facts.license,
        "task": classifier.task,
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "decision": json.dumps(classifier.decision.to_json(), ensure_ascii=False),
        "input": _FEED,
        "preprocessing": json.dumps(preprocessing),
        "bundle_sha256": hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest(),
    }
