"""Converts a bundle to LiteRT, as a program: `python -m thaw.exports.litert_conversion bundle model.tflite`.

`litert_target` runs it in a process of its own: the converter loads JAX and a compiler, which take 1.3 to 1.9 GB of
memory and write to the console below Python, where no setting reaches them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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


class _MeansInTwoSteps(TorchFunctionMode):
    """Means of maps over rows of means of pixels.

    LiteRT adds all values of a mean one after the other in float32. Of 112 x 112 pixels that is off by 1e-5, which a
    head on all stages may amplify to a probability that differs by 0.001.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.Tensor.mean and options.get("dim") == (2, 3):
            rows = func(*args, **{**options, "dim": 3})
            return func(rows, **{**options, "dim": 2})
        return func(*args, **options)


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
    # litert-torch 0.10 recognises weights by their address; of weights in another order it makes copies, whose address
    # the next copy may have again, and then two convolutions get the weights of one (litert-torch issue 1061).
    classifier.to(memory_format=torch.contiguous_format)
    with _MeansInTwoSteps():
        model = litert_torch.convert(_Named(ModelAtSize(classifier)).eval(), sample_kwargs=example)
    tflite.write_bytes(model.model_content())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
