"""The geometry of a `PixelSpec` as a graph: images of any size in, the square that the network sees out.

Pillow resizes in two passes, across and then down; each weighs the pixels under a filter, in fixed point, and rounds
to 8 bits (Pillow, src/libImaging/Resample.c). Here a pass is one matrix product: the weights of every place in the
line are computed from its length when the graph runs, so every filter and size is the same few operations, which each
engine has. Only the rows and columns that the crop keeps are computed.
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
"""Pillow's weights for 8-bit pixels are whole numbers of 2^-22. In two halves of 11 bits, multiplied and added
up apart, nothing is lost in float32, nor in the TF32 of a GPU."""
_DOWN_FIRST_SINCE = 13


class Resize(nn.Module):
    """Images (N, H, W, 3) uint8 of any H and W to (N, S, S, 3) uint8, resized, cropped and padded as `spec` says.

    Without branches both orders of the passes are computed, for an engine that cannot be trusted with an `If`.

    An engine with float64 gives Pillow's very pixels. On one without, a pixel may differ by a level where a sum lies at
    the edge between two, and in border mode the shorter side may be one pixel off where its quotient ends in one half,
    which is one size in ten thousand.
    """

    fill: Tensor

    def __init__(self, spec: PixelSpec, has_branches: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.has_branches = has_branches
        self.register_buffer("fill", torch.tensor(spec.fill, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize one batch."""
        height, width = _length(images, 1), _length(images, 2)
        across = self._line(images, 2, width, self._resized(width, height))
        down = self._line(images, 1, height, self._resized(height, width))
        pixels = self._passes(images.permute(0, 3, 1, 2).to(torch.float32), across, down)
        if self.spec.scale < self.spec.size or self.spec.crop_mode == "border":
            pixels = torch.where(down.is_inside[:, None] & across.is_inside, pixels, self.fill)
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
        # Where the quotient ends in one half, the last bit of the division in float64 decides.
        halfway = (side.to(torch.float64) / (long.to(torch.float64) / scale)).round().to(torch.int64)
        return torch.where(2 * rest == long, halfway, nearest).clamp(min=1)

    def _passes(self, images: Tensor, across: _Line, down: _Line) -> Tensor:
        """Both passes over (N, 3, H, W) float32, in Pillow's order, which shows because each rounds and clips.

        Pillow goes down first, since release 13, where the height shrinks by over twice as much as the width.
        """
        operands = (images, across.weights, down.weights)
        if int(PIL.__version__.partition(".")[0]) < _DOWN_FIRST_SINCE:
            return _across_then_down(*operands)
        is_down_first = (down.shrinks_by > 0) & (down.shrinks_by > 2 * across.shrinks_by)
        if not self.has_branches:
            return torch.where(is_down_first, _down_then_across(*operands), _across_then_down(*operands))
        if torch.compiler.is_exporting():
            return torch.cond(is_down_first, _down_then_across, _across_then_down, operands)
        return (_down_then_across if is_down_first else _across_then_down)(*operands)

    def _line(self, images: Tensor, dimension: int, length: Tensor, resized: Tensor) -> _Line:
        """What each of the S places of the crop takes from a row or column of the image."""
        missing = (self.spec.size - resized).clamp(min=0)
        excess = (resized - self.spec.size).clamp(min=0)
        # Half of the excess, and of two equally near whole numbers the even one, as Python rounds.
        first = excess // 2 + (excess % 2) * (excess // 2 % 2) - missing // 2
        places = torch.arange(self.spec.size, dtype=torch.int64, device=images.device) + first
        pixels = torch.arange(images.shape[dimension], dtype=torch.int64, device=images.device)
        # Twice the distance between the middles, both measured from the middle of the line: whole numbers stay exact.
        distance = (2 * pixels + 1 - length) * resized - ((2 * places + 1 - resized) * length)[:, None]
        reach = 2 * torch.maximum(length, resized)
        weights = _FILTERS[self.spec.interpolation]((distance.to(torch.float64) / reach.to(torch.float64)).abs())
        weights = (weights / weights.sum(dim=1, keepdim=True).clamp(min=_TINY) * _HALF**2).round()
        coarse = (weights / _HALF).round()
        halves = torch.cat([coarse, weights - coarse * _HALF]).to(torch.float32)
        return _Line(halves, (places >= 0) & (places < resized), length - resized)


@dataclass(frozen=True)
class _Line:
    """Weights (2 S, L) float32 of one pass, which of the S places lie inside the resized image, and pixels it loses.

    The first S rows are the upper half of each weight's bits and the others the lower half, both whole numbers.
    """

    weights: Tensor
    is_inside: Tensor
    shrinks_by: Tensor


def _across_then_down(images: Tensor, across: Tensor, down: Tensor) -> Tensor:
    return _down(_across(images, across), down)


def _down_then_across(images: Tensor, across: Tensor, down: Tensor) -> Tensor:
    return _across(_down(images, down), across)


def _across(images: Tensor, weights: Tensor) -> Tensor:
    return _levels(*(images @ weights.T).chunk(2, dim=3))


def _down(images: Tensor, weights: Tensor) -> Tensor:
    return _levels(*(weights @ images).chunk(2, dim=2))


def _levels(coarse: Tensor, fine: Tensor) -> Tensor:
    """The sums of a pass, upper and lower half, as the nearest level; a sum between two levels goes up."""
    coarse = coarse / _HALF + 0.5
    whole = coarse.floor()
    return (whole + (coarse - whole + fine / _HALF**2).floor()).clamp(0.0, 255.0)


def _length(images: Tensor, dimension: int) -> Tensor:
    """A side of the images as a tensor, so that no size is fixed when the graph is recorded."""
    return torch.scalar_tensor(images.shape[dimension], dtype=torch.int64, device=images.device)


def _bilinear(x: Tensor) -> Tensor:
    return (1.0 - x).clamp(min=0.0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys (1981), with a = -0.5."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    """A sinc under a three times wider one."""
    angle = x.clamp(min=_TINY) * pi
    return torch.where(x < 3.0, 3.0 * angle.sin() * (angle / 3.0).sin() / (angle * angle), torch.zeros_like(x))


_TINY = 1e-6
_FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
"""Weight of a pixel by its distance (>= 0), in pixels of whichever image is coarser."""
