"""Views drawn on a CUDA device by two kernels, in place of some forty of PyTorch's.

The first one warps an image and adds up its pixels, the second changes contrast and brightness, which depend on their
mean. Every view is read and written twice; an element-wise function of PyTorch would do so forty times.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from thaw.device import current_on

_BLOCK = 1024
"""Pixels of a view that one program computes."""

_ROUND = tl.constexpr(1.5 * 2**23)
"""Adding it to a number below 4 million and taking it away rounds to the nearest integer, halves to the even one."""


def drawn_by_triton(
    pixels: Tensor, starts: Tensor, sides: Tensor, numbers: Tensor, size: int, fill: Tensor | None
) -> Tensor:
    """Views (N, S, S, 3) uint8; arguments as in `thaw.features.device_views.drawn_by_pytorch`."""
    views = len(starts)
    out = torch.empty(views, size, size, 3, dtype=torch.uint8, device=pixels.device)
    sums = torch.zeros(views, dtype=torch.int32, device=pixels.device)
    grid = (views, triton.cdiv(size * size, _BLOCK))
    # Where nothing surrounds an image, no pixel of `fill` is taken.
    with current_on(pixels.device):
        _warp[grid](pixels, starts, sides, numbers, pixels if fill is None else fill, out, sums, size, _BLOCK)
        _tone[grid](numbers, sums, out, size, _BLOCK)
    return out


@triton.jit
def _warp(
    pixels: tl.tensor,
    starts: tl.tensor,
    sides: tl.tensor,
    numbers: tl.tensor,
    fill: tl.tensor,
    out: tl.tensor,
    sums: tl.tensor,
    size: tl.constexpr,
    block: tl.constexpr,
) -> None:
    view = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * block + tl.arange(0, block)
    is_inside = offsets < size * size
    column, row = (offsets % size).to(tl.float32), (offsets // size).to(tl.float32)
    warp = numbers + 9 * view
    x = tl.load(warp) * column + (tl.load(warp + 1) * row + tl.load(warp + 2))
    y = tl.load(warp + 3) * column + (tl.load(warp + 4) * row + tl.load(warp + 5))
    start, width, height = tl.load(starts + view), tl.load(sides + 2 * view), tl.load(sides + 2 * view + 1)
    left, top = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
    right_part, lower_part = x - tl.floor(x), y - tl.floor(y)
    surrounding, is_filled = tl.load(fill), tl.load(warp + 8)
    upper_left = _pixel(pixels, start, left, top, width, height, surrounding, is_filled)
    upper_right = _pixel(pixels, start, left + 1, top, width, height, surrounding, is_filled)
    lower_left = _pixel(pixels, start, left, top + 1, width, height, surrounding, is_filled)
    lower_right = _pixel(pixels, start, left + 1, top + 1, width, height, surrounding, is_filled)
    target = out + 3 * (view * size * size + offsets)
    total = tl.zeros((block,), tl.int32)
    for channel in tl.static_range(3):
        upper = _between(upper_left, upper_right, right_part, channel)
        lower = _between(lower_left, lower_right, right_part, channel)
        value = _rounded(upper + lower_part * (lower - upper)).to(tl.int32)
        total += value
        tl.store(target + channel, value.to(tl.uint8), mask=is_inside)
    tl.atomic_add(sums + view, tl.sum(tl.where(is_inside, total, 0)))


@triton.jit
def _tone(numbers: tl.tensor, sums: tl.tensor, out: tl.tensor, size: tl.constexpr, block: tl.constexpr) -> None:
    view = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * block + tl.arange(0, block)
    is_inside = offsets < size * size
    contrast, brightness = tl.load(numbers + 9 * view + 6), tl.load(numbers + 9 * view + 7)
    mean = tl.load(sums + view).to(tl.float32) / (3 * size * size)
    strength = tl.abs(brightness)
    shift = tl.where(brightness > 0, 255.0 * strength, 0.0)
    target = out + 3 * (view * size * size + offsets)
    for channel in tl.static_range(3):
        value = tl.load(target + channel, mask=is_inside, other=0).to(tl.float32)
        value = mean * (1.0 - contrast) + value * contrast
        value = tl.minimum(tl.maximum(value, 0.0), 255.0)
        value = _rounded(shift + value * (1.0 - strength)).to(tl.int32)
        tl.store(target + channel, value.to(tl.uint8), mask=is_inside)


@triton.jit
def _pixel(
    pixels: tl.tensor,
    start: tl.tensor,
    column: tl.tensor,
    row: tl.tensor,
    width: tl.tensor,
    height: tl.tensor,
    surrounding: tl.tensor,
    is_filled: tl.tensor,
) -> tl.tensor:
    """The pixels at some positions of an image, mirrored at its edges or surrounded by a colour."""
    found = tl.load(pixels + start + (_mirrored(row, height) * width + _mirrored(column, width)))
    is_outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    return tl.where(is_outside, tl.where(is_filled > 0, surrounding, found), found)


@triton.jit
def _mirrored(position: tl.tensor, length: tl.tensor) -> tl.tensor:
    """As `thaw.features.device_views.mirrored`."""
    period = tl.maximum(2 * length - 2, 1)
    folded = tl.abs(position) % period
    return tl.minimum(folded, tl.where(length > 1, period - folded, 0))


@triton.jit
def _between(first: tl.tensor, second: tl.tensor, part: tl.tensor, channel: tl.constexpr) -> tl.tensor:
    """One channel of two pixels, interpolated."""
    low = ((first >> (8 * channel)) & 255).to(tl.float32)
    high = ((second >> (8 * channel)) & 255).to(tl.float32)
    return low + part * (high - low)


@triton.jit
def _rounded(value: tl.tensor) -> tl.tensor:
    return (value + _ROUND) - _ROUND
