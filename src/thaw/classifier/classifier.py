"""The thing that predicts: normalisation, backbone, head, and the classes in their fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.classifier.decision import Decision
from thaw.classifier.head import Head
from thaw.classifier.review import ReviewPolicy
from thaw.recipe import DecodeSettings, Task


class Classifier(nn.Module):
    """Pixels in, probabilities out, and labels from them.

    decision: how labels follow from probabilities. familiar: what tells images for a person from others; `None` where
    nothing was learned about that.
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
        # As the images lie, so that no convolution turns its weights around at every step.
        self.to(memory_format=torch.channels_last)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, outputs) for pixels (N, S, S, 3) uint8 0..255."""
        return self.above(self.normalise(pixels), 0)

    def above(self, inputs: Tensor, position: int) -> Tensor:
        """Logits (N, outputs) for what lies at a cut: the thawed stages, pooling and the head."""
        return self.head(self.backbone.run(inputs, position, self.backbone.head_position))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (N, classes): softmax; a sigmoid per label; or for binary the two sides of one sigmoid."""
        logits = logits.float()
        if self.task == "multiclass":
            return logits.softmax(dim=1)
        if self.task == "multilabel":
            return logits.sigmoid()
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)


def outputs_of(task: Task, classes: Sequence[str]) -> int:
    """Width of the last layer: one sigmoid for binary, else one output a class."""
    return 1 if task == "binary" else len(classes)
