"""The model: normalisation, backbone and head, with the class names in the order of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch
from torch import Tensor, nn

from thaw.backbones.contract import Backbone
from thaw.backbones.facts import TrainedHead
from thaw.backbones.normalise import Normalise
from thaw.backbones.stages import AtCut
from thaw.classifier.decision import Decision
from thaw.classifier.head import Head
from thaw.classifier.review import ReviewPolicy
from thaw.recipe import DecodeSettings, Task


class Classifier(nn.Module):
    """From pixels to probabilities.

    Attributes:
        classes: Class names; output i belongs to `classes[i]`.
        decode: How image files were read in training, and are read in prediction.
        decision: How labels follow from probabilities.
        review_policy: Which images are flagged for review; `None` before it is fitted.
    """

    def __init__(
        self, backbone: Backbone, head: Head, classes: Sequence[str], task: Task, decode: DecodeSettings
    ) -> None:
        super().__init__()
        self.normalise = Normalise(backbone.facts.mean, backbone.facts.std)
        self.backbone = backbone
        self.head = head
        self.classes = tuple(classes)
        self.task: Task = task
        self.decode = decode
        self.decision = Decision()
        self.review_policy: ReviewPolicy | None = None
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def has_plain_head(self) -> bool:
        """Whether the head is what pre-trained networks have: one linear layer on the last stage."""
        return self.head.is_linear and self.backbone.features == "last"

    def forward(self, inputs: AtCut, position: int) -> Tensor:
        """Run everything above a cut.

        Args:
            inputs: What lies at the cut, float; for position 0 normalised images (N, 3, S, S).
            position: The position of the cut, as in `Cut.position`.

        Returns:
            Logits (N, outputs).
        """
        return self.head(self.backbone.advance(inputs, position, self.backbone.head_position).for_head())

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (N, outputs) of pixels (N, S, S, 3) uint8 0..255."""
        return self(AtCut.above_nothing(self.normalise(pixels)), 0)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (N, classes) float32 of logits (N, outputs).

        Softmax for multiclass, one sigmoid per label for multilabel; for binary the sigmoid of the one logit belongs to
        class 1.
        """
        logits = logits.float()
        match self.task:
            case "multiclass":
                return logits.softmax(dim=1)
            case "multilabel":
                return logits.sigmoid()
            case "binary":
                return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)
            case unknown:
                assert_never(unknown)


def new_head(backbone: Backbone, outputs: int, hidden: Sequence[int] = (), dropout: float = 0.0, seed: int = 0) -> Head:
    """A new head on what a backbone gives it; one on all stages standardises its features, whose scales differ."""
    return Head(backbone.feature_width, outputs, hidden, dropout, seed, standardised=backbone.features == "all")


def start_from_trained_head(classifier: Classifier) -> None:
    """Start the head of a classifier as the one that came with its backbone, if that has the same layers."""
    backbone, head, classes = classifier.backbone, classifier.head, classifier.classes
    trained = backbone.trained_head
    if trained is None or backbone.features != "last" or trained.hidden != head.hidden:
        return
    if fits(trained, backbone, outputs_of(classifier.task, classes)):
        head.start_from(trained.in_order_of(classes).layers)


def fits(trained: TrainedHead, backbone: Backbone, outputs: int) -> bool:
    """Whether a head that came with a backbone can be one with so many outputs; a binary one may have one for each."""
    return trained.pooling == backbone.pooling and trained.outputs in ({1, 2} if outputs == 1 else {outputs})


def outputs_of(task: Task, classes: Sequence[str]) -> int:
    """Number of outputs of the last layer: 1 for binary, else one per class."""
    return 1 if task == "binary" else len(classes)
