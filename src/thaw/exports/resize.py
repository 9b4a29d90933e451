"""The geometry of a `PixelSpec` as part of the model: images of any size in, the network's square input out.

Pillow resizes in two passes, horizontal and then vertical; each weights the pixels with a filter in fixed-point
arithmetic and rounds to 8 bits (Pillow, src/libImaging/Resample.c). Here a pass is one matrix product: the weights of
every output pixel of a line are computed from its length when the graph runs, so all filters and sizes use the same few
operations, which every engine supports. Only the rows and columns that the crop keeps are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import PIL
import torch
from torch import Tensor, nn

from thaw.data.geometry import PixelSpec

_HALF = 2.0**11
"""Pillow's weights for 8-bit pixels are integer multiples of 2^-22. Split into two halves of 11 bits, which are
multiplied and summed separately, they are exact in float32 and in the TF32 of a GPU."""
_VERTICAL_FIRST_SINCE = 13
"""The Pillow release that began to run the vertical pass first for some shapes."""


class Resize(nn.Module):
    """Images (N, H, W, 3) uint8 of any H and W to (N, S, S, 3) uint8, resized, cropped and padded as `spec` defines.

    Without branches both orders of the passes are computed, for engines that do not compute an `If` correctly.

    On an engine with float64 the pixels equal Pillow's. Without float64 a pixel may differ by one level where a sum is
    halfway between two, and in border mode the shorter side may be one pixel off where its quotient ends in one half,
    which happens for one size in ten thousand.
    """

    fill: Tensor

    def __init__(self, spec: PixelSpec, supports_branches: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.supports_branches = supports_branches
        self.register_buffer("fill", torch.tensor(spec.fill, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize one batch."""
        height, width = _length(images, 1), _length(images, 2)
        horizontal = self._weights(images, 2, width, self._resized(width, height))
        vertical = self._weights(images, 1, height, self._resized(height, width))
        pixels = self._passes(images.permute(0, 3, 1, 2).to(torch.float32), horizontal, vertical)
        if self.spec.scale < self.spec.size or self.spec.crop_mode == "border":
            pixels = torch.where(vertical.is_inside[:, None] & horizontal.is_inside, pixels, self.fill)
        return pixels.permute(0, 2, 3, 1).to(torch.uint8)

    def _resized(self, side: Tensor, other: Tensor) -> Tensor:
        """`PixelSpec.resized` for one side, int64."""
        scale = self.spec.scale
        if self.spec.crop_mode == "squash":
            return torch.full_like(side, scale)
        if self.spec.crop_mode == "center":
            return scale * side // torch.minimum(side, other)
        long = torch.maximum(side, other)
        whole, rest = scale * side // long, scale * side % long
        nearest = whole + (2 * rest > long).to(torch.int64)
        # Where the quotient ends in one half, the last bit of the float64 division decides.
        halfway = (side.to(torch.float64) / (long.to(torch.float64) / scale)).round().to(torch.int64)
        return torch.where(2 * rest == long, halfway, nearest).clamp(min=1)

    def _passes(self, images: Tensor, horizontal: _Weights, vertical: _Weights) -> Tensor:
        """Both passes over (N, 3, H, W) float32, in Pillow's order, which matters because each rounds and clips.

        Since release 13 Pillow runs the vertical pass first if the height shrinks by over twice as much as the width.
        """
        operands = (images, horizontal.values, vertical.values)
        if int(PIL.__version__.partition(".")[0]) < _VERTICAL_FIRST_SINCE:
            return _horizontal_first(*operands)
        is_vertical_first = (vertical.shrinks_by > 0) & (vertical.shrinks_by > 2 * horizontal.shrinks_by)
        if not self.supports_branches:
            return torch.where(is_vertical_first, _vertical_first(*operands), _horizontal_first(*operands))
        if torch.compiler.is_exporting():
            return torch.cond(is_vertical_first, _vertical_first, _horizontal_first, operands)
        return (_vertical_first if is_vertical_first else _horizontal_first)(*operands)

    def _weights(self, images: Tensor, dimension: int, length: Tensor, resized: Tensor) -> _Weights:
        """The weights of the pixels of a row or column in each of the S positions of the crop."""
        missing = (self.spec.size - resized).clamp(min=0)
        excess = (resized - self.spec.size).clamp(min=0)
        # Half of the excess, rounded half to even as Python does.
        first = excess // 2 + (excess % 2) * (excess // 2 % 2) - missing // 2
        positions = torch.arange(self.spec.size, dtype=torch.int64, device=images.device) + first
        pixels = torch.arange(images.shape[dimension], dtype=torch.int64, device=images.device)
        # Twice the distance between pixel centres, measured from the middle of the line: integers stay exact.
        distance = (2 * pixels + 1 - length) * resized - ((2 * positions + 1 - resized) * length)[:, None]
        reach = 2 * torch.maximum(length, resized)
        weights = _FILTERS[self.spec.interpolation]((distance.to(torch.float64) / reach.to(torch.float64)).abs())
        weights = (weights / weights.sum(dim=1, keepdim=True).clamp(min=_TINY) * _HALF**2).round()
        coarse = (weights / _HALF).round()
        halves = torch.cat([coarse, weights - coarse * _HALF]).to(torch.float32)
        return _Weights(halves, (positions >= 0) & (positions < resized), length - resized)


@dataclass(frozen=True)
class _Weights:
    """Weights (2 S, L) float32 of one pass, which of the S positions are inside the resized image, and lost pixels.

    The first S rows hold the upper half of the bits of each weight and the others the lower half, both as integers.
    """

    values: Tensor
    is_inside: Tensor
    shrinks_by: Tensor


def _horizontal_first(images: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    return _vertical_pass(_horizontal_pass(images, horizontal), vertical)


def _vertical_first(images: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    return _horizontal_pass(_vertical_pass(images, vertical), horizontal)


def _horizontal_pass(images: Tensor, weights: Tensor) -> Tensor:
    return _rounded(*(images @ weights.T).chunk(2, dim=3))


def _vertical_pass(images: Tensor, weights: Tensor) -> Tensor:
    return _rounded(*(weights @ images).chunk(2, dim=2))


def _rounded(coarse: Tensor, fine: Tensor) -> Tensor:
    """The sums of a pass, upper and lower half, rounded half up to 0..255."""
    coarse = coarse / _HALF + 0.5
    whole = coarse.floor()
    return (whole + (coarse - whole + fine / _HALF**2).floor()).clamp(0.0, 255.0)


def _length(images: Tensor, dimension: int) -> Tensor:
    """A side of the images as a tensor, so that tracing does not fix its size."""
    return torch.scalar_tensor(images.shape[dimension], dtype=torch.int64, device=images.device)


def _bilinear(x: Tensor) -> Tensor:
    return (1.0 - x).clamp(min=0.0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys (1981), with a = -0.5."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    """A sinc windowed by one three times as wide."""
    angle = x.clamp(min=_TINY) * pi
    return torch.where(x < 3.0, 3.0 * angle.sin() * (angle / 3.0).sin() / (angle * angle), torch.zeros_like(x))


_TINY = 1e-6
_FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
"""Weight of a pixel by its distance (>= 0), in pixels of the coarser of the two images."""
