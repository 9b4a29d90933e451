"""The frozen part run by PyTorch: eagerly, compiled, or captured as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.stages import AtCut
from thaw.device import addresses_of, compute_fp32_exactly, current_on

Precision = Literal["fp32", "bf16"]

_LEAST = {"eager": 1, "compiled": 32, "cuda_graph": 32}
"""Images for which a network is prepared at least."""


class Frozen(nn.Module):
    """The blocks from the pixels to the last of some positions, as one module."""

    def __init__(self, backbone: Backbone, positions: Sequence[int]) -> None:
        super().__init__()
        self.normalise = Normalise(backbone.facts.mean, backbone.facts.std)
        self.backbone = backbone
        self.positions = tuple(positions)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The values at each position, and the statistics of all stages below the highest one if the head takes any.

        For pixels (N, S, S, 3) uint8 0..255. Not an `AtCut` for each position: their statistics are parts of one
        another, and engines have no outputs of width 0.
        """
        at, start, outputs = AtCut.above_nothing(self.normalise(pixels)), 0, []
        for position in self.positions:
            at, start = self.backbone.advance(at, start, position), position
            outputs.append(at.values)
        return (*outputs, at.stages) if self.backbone.stage_width(start) else tuple(outputs)

    def at_cuts(self, outputs: Sequence[Tensor]) -> list[AtCut]:
        """What lies at each position, of what `forward` gives."""
        widths = [self.backbone.stage_width(position) for position in self.positions]
        if not widths[-1]:
            return [AtCut.above_nothing(values) for values in outputs]
        *values, stages = outputs
        return [AtCut(part, stages[:, :width]) for part, width in zip(values, widths, strict=True)]


class _Captured:
    """Forward passes that are replayed from CUDA graphs, one for each shape of the pixels.

    Launching the operations of ResNet50 one by one takes 5 ms of Python, as long as computing them for 64 images.
    Graphs are captured anew once the weights lie elsewhere, in another layout or after they were on another device.
    """

    def __init__(self, frozen: Frozen) -> None:
        self._frozen = frozen
        # Finding them takes as long as a batch, 1 to 8 ms.
        self._parameters = tuple(frozen.parameters())
        self._addresses: tuple[int, ...] = ()
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]] = {}

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """As `Frozen`."""
        addresses = addresses_of(self._parameters)
        if addresses != self._addresses:
            self._graphs.clear()
            self._addresses = addresses
        if pixels.shape not in self._graphs:
            self._graphs[pixels.shape] = self._capture(pixels)
        graph, inputs, outputs = self._graphs[pixels.shape]
        inputs.copy_(pixels)
        graph.replay()
        # The next replay overwrites them.
        return tuple(output.clone() for output in outputs)

    def _capture(self, pixels: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        with current_on(pixels.device):
            graph, inputs = torch.cuda.CUDAGraph(), pixels.clone()
            current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                self._frozen(inputs)
            current.wait_stream(aside)
            # Another thread draws the next views meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = self._frozen(inputs)
        return graph, inputs, outputs


class TorchRunner:
    """Runs the frozen blocks in fp32 or with bf16 autocast.

    Prepared in advance, or on an accelerator, a batch is padded to a power of two with black images, whose outputs are
    dropped: a network is prepared again for every other size, and cuDNN prepares every convolution for one.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        precision: Precision,
        positions: Sequence[int],
        mode: Literal["eager", "compiled", "cuda_graph"] = "eager",
    ) -> None:
        self.positions = tuple(positions)
        self._frozen = Frozen(backbone, positions)
        # Which of several accelerators it is, other threads do not know.
        self._device = backbone.device if backbone.device.type == device.type else device
        self._frozen.normalise.to(self._device)
        self._forward = self._prepared(mode)
        self._precision = precision
        self._pads = mode != "eager" or device.type != "cpu"
        self._least = _LEAST[mode]

    def run(self, pixels: Tensor) -> list[AtCut]:
        """What lies at each position, float32 on the device without gradients, for pixels (N, S, S, 3) uint8."""
        images = len(pixels)
        size = max(self._least, 1 << (images - 1).bit_length()) if self._pads else images
        if size > images:
            pixels = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, size - images))
        with torch.no_grad(), autocast(self._device, self._precision):
            outputs = [output[:images].float() for output in self._forward(pixels.to(self._device))]
        return self._frozen.at_cuts(outputs)

    def _prepared(self, mode: Literal["eager", "compiled", "cuda_graph"]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        match mode:
            case "eager":
                return self._frozen
            case "compiled":
                return torch.compile(self._frozen, dynamic=False)
            case "cuda_graph":
                return _Captured(self._frozen)
            case unknown:
                assert_never(unknown)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision on a device; fp32 is exact in it and ever after.

    Rounded weights are not kept for the next use in it: a captured graph would read them after they are gone.
    """
    compute_fp32_exactly()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
