"""Converts a bundle to LiteRT, as a program: `python -m thaw.exports.litert_conversion bundle model.tflite`.

`litert_target` runs it in a process of its own: the converter loads JAX and a compiler, which take a gigabyte of memory
and write to the console below Python, where no setting reaches them.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from thaw.bundle import read_bundle
from thaw.exports.deployment import INPUT, OUTPUT, ModelAtSize


class _Named(nn.Module):
    """The model with a name for its output, which becomes that of the signature."""

    def __init__(self, model: ModelAtSize) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Classify one batch."""
        return {OUTPUT: self.model(images)}


def convert(bundle: Path, tflite: Path) -> None:
    """Write a .tflite file that takes one image.

    With a batch of any size the converter fails where an operation combines the images with a constant, and a graph
    that was traced before it cannot trace again.
    """
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    import litert_torch

    classifier = read_bundle(bundle)
    size = classifier.backbone.facts.pixels.size
    example = {INPUT: torch.zeros((1, size, size, 3), dtype=torch.uint8)}
    model = litert_torch.convert(_Named(ModelAtSize(classifier)).eval(), sample_kwargs=example)
    tflite.write_bytes(model.model_content())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
