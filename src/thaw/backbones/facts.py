"""What travels with pre-trained weights: facts about them, and the head that they came with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from thaw.data.geometry import PixelSpec

Pooling = Literal["avg", "max", "avgmax"]
Features = Literal["last", "all"]
"""What the head takes: the pooled features of the last stage, or also the statistics of the stages below."""


@dataclass(frozen=True)
class Facts:
    """What travels with pre-trained weights.

    mean, std: per channel, of pixels in 0..1. width: features after pooling. classifier_name: where the
    wrapped library keeps the last layer. license: of the weights. origin and preprocessing_origin: one phrase
    each, for people. model_args: what rebuilds the architecture. library: which module of this package builds it. int8:
    whether its convolutions compute in eight bits.
    """

    architecture: str
    pixels: PixelSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    width: int
    classifier_name: str
    license: str
    origin: str
    preprocessing_origin: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    library: str = "timm"
    int8: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Facts:
        """The facts whose fields were written as JSON; raises `ValueError`, `KeyError` or `TypeError`."""
        pixels, mean, std = (
            PixelSpec.from_json(values["pixels"]),
            per_channel(values["mean"]),
            per_channel(values["std"]),
        )
        return cls(**{**values, "pixels": pixels, "mean": mean, "std": std})


def per_channel(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers, for red, green and blue; raises `ValueError` where there are more or fewer."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True)
class TrainedHead:
    """A head that came with a backbone: linear layers with ReLU between them, on the pooled last stage.

    layers: (weight (out, in), bias (out,)) of each; outputs in the order of sorted class names. dropout: before
    the last layer. source: the file.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    pooling: Pooling
    dropout: float
    source: str

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of the hidden layers."""
        return tuple(len(bias) for _, bias in self.layers[:-1])

    @property
    def outputs(self) -> int:
        """Units of the last layer."""
        return len(self.layers[-1][1])

    def in_order_of(self, classes: Sequence[str]) -> TrainedHead:
        """The head with its outputs in the order of `classes`: Keras sorts their names as text, "10" before "2"."""
        *hidden, (weight, bias) = self.layers
        order = [sorted(classes).index(name) for name in classes]
        if self.outputs == 1:
            # The only output is that of the second class.
            sign = order[1] - order[0]
            weight, bias = sign * weight, sign * bias
        else:
            weight, bias = weight[order], bias[order]
        return replace(self, layers=(*hidden, (weight, bias)))
