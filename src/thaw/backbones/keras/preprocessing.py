"""How the families of `keras.applications` preprocess, as data instead of their `preprocess_input`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["caffe", "tf", "torch", "inside"]
"""caffe: blue first, minus the mean, 0..255. tf: -1..1. torch: ImageNet's mean and deviation. inside: 0..255, because
the network rescales by itself."""


@dataclass(frozen=True)
class Normalisation:
    """Per channel (red, green, blue), of pixels in 0..1, as in `Facts`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_ONE_255TH = (1 / 255, 1 / 255, 1 / 255)

NORMALISATIONS: dict[Mode, Normalisation] = {
    "caffe": Normalisation((123.68 / 255, 116.779 / 255, 103.939 / 255), _ONE_255TH),
    "tf": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "torch": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inside": Normalisation((0.0, 0.0, 0.0), _ONE_255TH),
}

IMAGENET_COLOUR = (124, 116, 104)
"""The mean colour (R, G, B) of ImageNet, which pads images in every mode."""
