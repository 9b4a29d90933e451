"""A network in int8: every convolution takes inputs and weights of eight bits, whose ranges were measured on images.

PyTorch computes it with floats that have only these values; OpenVINO finds the rounding in the graph and computes in
integers. The weights stay parameters under their names. Gradients pass the rounding unchanged ("straight-through",
Bengio et al. 2013), which maps of evidence need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.rounding import (
    LEVELS,
    Convolution,
    PatchStatistics,
    levels_of,
    rounded_weights,
    scale_of_rows,
)
from thaw.errors import BackboneError

INPUT_LEVELS = 255
"""The largest value of an input in eight bits."""


class Int8Convolution(nn.Conv2d):
    """What a convolution becomes; a subclass that pads its inputs itself still does.

    Buffers: input_scale and input_zero, of the inputs as unsigned integers; weight_scale (outputs,), with which weights
    are -127..127; bias_correction (outputs,), what the rounded weights add to the mean of each output, subtracted.
    """

    input_scale: Tensor
    input_zero: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias_correction: Tensor

    # PyTorch's convolutions read these two, whatever else a subclass of them does.
    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights, rounded."""
        stored = cast(Tensor, self._parameters["weight"])
        # ONNX has no integers from -127 on; scales are such that none is -128.
        return torch.fake_quantize_per_channel_affine(
            stored, self.weight_scale, self.weight_zero, 0, -LEVELS - 1, LEVELS
        )

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The bias, corrected."""
        stored = self._parameters["bias"]
        return self.bias_correction if stored is None else stored + self.bias_correction

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of rounded inputs."""
        return super().forward(
            torch.fake_quantize_per_tensor_affine(input, self.input_scale, self.input_zero, 0, INPUT_LEVELS)
        )


def with_int8_convolutions(network: nn.Module) -> None:
    """Make every convolution of a network an `Int8Convolution`, in place; its ranges are loaded afterwards."""
    for convolution in _convolutions(network).values():
        outputs = len(convolution.weight)
        convolution.__class__ = _int8_kind(cast(type, type(convolution)))
        convolution.register_buffer("input_scale", torch.ones(()))
        convolution.register_buffer("input_zero", torch.zeros((), dtype=torch.int32))
        convolution.register_buffer("weight_scale", torch.ones(outputs))
        convolution.register_buffer("weight_zero", torch.zeros(outputs, dtype=torch.int32), persistent=False)
        convolution.register_buffer("bias_correction", torch.zeros(outputs))


def can_be_quantised(backbone: Backbone) -> bool:
    """Whether a network is in float, of PyTorch, and has convolutions."""
    return not backbone.facts.int8 and not _why_not(backbone)


def quantise(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Quantise a network in place: measure what its convolutions see, round weights so that outputs change least.

    Args:
        backbone: The network, in float.
        batches: Images to measure ranges on, (N, S, S, 3) uint8 each.

    Raises:
        BackboneError: It is in int8 already, not of PyTorch, or has no convolutions with weights of their own.
    """
    if backbone.facts.int8:
        raise BackboneError(f"{backbone.facts.architecture}: the weights are in int8 already")
    if reason := _why_not(backbone):
        raise BackboneError(f"{backbone.facts.architecture}: cannot run in int8: {reason}")
    named = _convolutions(backbone.network)
    observer = _Observer({convolution.weight: name for name, convolution in named.items()})
    normalise = Normalise(backbone.facts.mean, backbone.facts.std).to(backbone.device)
    with torch.no_grad():
        for pixels in batches:
            images = normalise(pixels.to(backbone.device))
            with observer:
                backbone(images)
        rounded = {name: _rounded(named[name], seen) for name, seen in observer.seen.items()}
        if unseen := sorted(named.keys() - rounded.keys()):
            raise BackboneError(
                f"{backbone.facts.architecture}: cannot run in int8: {unseen[0]} does not run, or with other weights "
                "than those that it stores"
            )
        with_int8_convolutions(backbone.network)
        for name, tensors in rounded.items():
            named[name].load_state_dict(tensors, strict=False)
    backbone.facts = replace(backbone.facts, int8=True)


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named weights for a file: those of convolutions in int8 as the integers that they are."""
    scales = _scales(tensors)
    return {
        name: (value / scales[name]).round().to(torch.int8) if name in scales else value
        for name, value in tensors.items()
    }


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` was given."""
    scales = _scales(tensors)
    return {
        name: value * scales[name] if name in scales and value.dtype == torch.int8 else value
        for name, value in tensors.items()
    }


def is_convolution(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is that of `torch.nn.Conv2d`, and of subclasses that pad themselves."""
    return func is torch.conv2d and len(args) == 7 and not kwargs


@dataclass
class _Seen:
    """What one convolution sees: the range of its inputs, 0 included, and sums over the patches."""

    patches: PatchStatistics
    low: float = 0.0
    high: float = 0.0

    def add(self, inputs: Tensor) -> None:
        self.low, self.high = min(self.low, float(inputs.min())), max(self.high, float(inputs.max()))
        self.patches.add(inputs.cpu())


class _Observer(TorchFunctionMode):
    """Collects what convolutions see; names: of the convolutions, by their weight."""

    def __init__(self, names: Mapping[Tensor, str]) -> None:
        super().__init__()
        self.seen: dict[str, _Seen] = {}
        self._names = names

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if is_convolution(func, args, kwargs or {}) and args[1] in self._names:
            inputs, weight, _, stride, padding, dilation, groups = args
            name = self._names[weight]
            if name not in self.seen:
                sides = _sides(padding, weight.shape[2:], dilation)
                geometry = Convolution(tuple(weight.shape), sides, tuple(stride), tuple(dilation), groups)
                self.seen[name] = _Seen(PatchStatistics(geometry))
            self.seen[name].add(inputs)
        return func(*args, **(kwargs or {}))


def _rounded(convolution: nn.Conv2d, seen: _Seen) -> dict[str, Tensor]:
    """The tensors of a convolution in int8, by their names in it."""
    weights = convolution.weight.detach().cpu().double().numpy()
    scale = scale_of_rows(weights, levels_of(weights.shape))
    rounded, shift = rounded_weights(weights.reshape(len(weights), -1), scale, seen.patches.statistics())
    step = (seen.high - seen.low) / INPUT_LEVELS or 1.0
    integers = torch.from_numpy(np.rint(rounded / scale[:, None]).reshape(weights.shape)).to(torch.int8)
    of_rows = torch.from_numpy(scale).float()
    return {
        # As they will be read from a file, to the last bit.
        "weight": integers * of_rows[:, None, None, None],
        "weight_scale": of_rows,
        "bias_correction": torch.from_numpy(-shift).float(),
        "input_scale": torch.tensor(step),
        "input_zero": torch.tensor(round(-seen.low / step), dtype=torch.int32),
    }


def _scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scale (outputs, 1, 1, 1) of the weights of each convolution in int8, by the name of its weights."""
    end = "weight_scale"
    return {
        name.removesuffix(end) + "weight": scale[:, None, None, None]
        for name, scale in tensors.items()
        if name.endswith(end)
    }


def _why_not(backbone: Backbone) -> str:
    """Why a network in float cannot run in int8; empty where nothing is known to be in the way."""
    if backbone.facts.library != "timm":
        return f"that is for networks of PyTorch, not of {backbone.facts.library}"
    return "" if _convolutions(backbone.network) else "it has no convolutions"


def _sides(padding: Sequence[int] | str, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int, int, int]:
    """What a convolution adds left, right, above and below its inputs."""
    if isinstance(padding, str):
        both = [step * (size - 1) if padding == "same" else 0 for size, step in zip(kernel, dilation, strict=True)]
        return both[1] // 2, both[1] - both[1] // 2, both[0] // 2, both[0] - both[0] // 2
    return padding[1], padding[1], padding[0], padding[0]


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


@functools.cache
def _int8_kind(kind: type) -> type[Int8Convolution]:
    """The class of a convolution in int8 that was of another class, of which there are few."""
    return type(f"Int8{kind.__name__}", (Int8Convolution, kind), {})


def _shapes_of_rounded(
    input: Tensor, scale: Tensor, zero: Tensor, enabled: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(input), torch.empty_like(input, dtype=torch.bool)


# What PyTorch 2.14 lacks to export the rounding of inputs whose size is not fixed; a later release may have it.
with suppress(RuntimeError):
    torch.library.register_fake("aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", _shapes_of_rounded)
