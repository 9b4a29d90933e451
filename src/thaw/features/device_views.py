"""Views drawn on the device: decoded images that stay in its memory, and all views of a batch in one go.

The same views as `thaw.data.augment` draws: the same random numbers, composed affine warp and brightness. OpenCV
interpolates between 32 positions per pixel, this between all, so that augmented views differ by a few levels of 255
where neighbouring pixels differ much (tests/features/test_device_views.py has the figures); plain views are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from thaw.data.augment import Augmentation, ViewTransform, draw_transforms, matrices
from thaw.data.geometry import PixelSpec, start_of_crop
from thaw.data.pixel_store import PixelStore
from thaw.device import has_room_for, to_device

_AT_ONCE = 64
"""Views whose intermediate results, 51 MB each at 224 px, stay near the cores of a GPU."""

_BYTES = 4
"""Of a pixel on the device: a single read gives all three channels."""

_CHUNK = 64 << 20
"""Pixels that are copied to the device at once."""

_UNCHANGED = ViewTransform(0.0, (1, 1), 1.0, (0.0, 0.0), 1.0, (0.0, 0.0), 0.0, 1.0)


@dataclass(frozen=True)
class DevicePixels:
    """The resized images of a pixel store on a device.

    Attributes:
        spec: Their geometry.
        pixels: (P,) int32, the red, green, blue and an empty byte of each pixel of all images, one after another.
        starts: (rows,) int64, the first pixel of each image.
        sides: (rows, 2) int32, width and height of each image, on the device.
        fill: int32, the pixel that surrounds images that are smaller than a view.
        corners: (rows, 2) float64, (x, y) of the plain view in each image, on the host.
        is_padded: (rows,) bool, whether an image is smaller than its plain view, on the host.
    """

    spec: PixelSpec
    pixels: Tensor
    starts: Tensor
    sides: Tensor
    fill: Tensor
    corners: np.ndarray
    is_padded: np.ndarray

    @classmethod
    def of(cls, store: PixelStore, device: torch.device) -> DevicePixels:
        """All images of a store, copied to a device."""
        sizes = store.sizes
        areas = sizes.prod(axis=1)
        pixels = torch.zeros(int(areas.sum()), _BYTES, dtype=torch.uint8, device=device)
        buffer = np.empty((min(_CHUNK, len(pixels)), 3), np.uint8)
        for start in range(0, len(pixels), _CHUNK):
            part = buffer[: min(_CHUNK, len(pixels) - start)]
            store.fill(part, 3 * start)
            pixels[start : start + len(part), :3] = torch.from_numpy(part).to(device)
        corners = [[start_of_crop(int(side), store.spec.size) for side in pair[::-1]] for pair in sizes]
        return cls(
            spec=store.spec,
            pixels=pixels.view(torch.int32)[:, 0],
            starts=torch.from_numpy(areas.cumsum() - areas).to(device),
            sides=torch.from_numpy(sizes[:, ::-1].astype(np.int32)).to(device),
            fill=torch.tensor((*store.spec.fill, 0), dtype=torch.uint8, device=device).view(torch.int32)[0],
            corners=np.array(corners, float),
            is_padded=sizes.min(axis=1) < store.spec.size,
        )

    def render(self, items: Sequence[tuple[int, int]], augmentation: Augmentation, seed: int) -> Tensor:
        """Views (N, S, S, 3) uint8 on the device of (image, view) pairs, as `ViewRenderer` gives them."""
        is_plain = np.array([view == 0 or not augmentation.changes for _, view in items])
        drawn = draw_transforms(augmentation, seed, items)
        transforms = [_UNCHANGED if plain else each for plain, each in zip(is_plain.tolist(), drawn, strict=True)]
        rows, device = np.array([image for image, _ in items]), self.pixels.device
        warps = matrices(transforms, self.spec.size)
        warps[:, :, 2] += self.corners[rows]
        tones = [(each.contrast, each.brightness) for each in transforms]
        is_filled = is_plain & self.is_padded[rows] | (self.spec.crop_mode == "border")
        numbers = np.concatenate([warps.reshape(-1, 6), tones, is_filled[:, None]], axis=1, dtype=np.float32)
        where = to_device(rows, device)
        fill = self.fill if is_filled.any() else None
        draw = fastest(device)
        return draw(
            self.pixels, self.starts[where], self.sides[where], to_device(numbers, device), self.spec.size, fill
        )


class Draw(Protocol):
    """Computes views."""

    def __call__(
        self, pixels: Tensor, starts: Tensor, sides: Tensor, numbers: Tensor, size: int, fill: Tensor | None
    ) -> Tensor:
        """As `drawn_by_pytorch`."""
        ...


def fastest(device: torch.device) -> Draw:
    """What draws views on a device: kernels of Triton where it is, which PyTorch installs with CUDA on Linux."""
    if device.type == "cuda" and find_spec("triton"):
        from thaw.features.triton_views import drawn_by_triton

        return drawn_by_triton
    return drawn_by_pytorch


def drawn_by_pytorch(
    pixels: Tensor, starts: Tensor, sides: Tensor, numbers: Tensor, size: int, fill: Tensor | None
) -> Tensor:
    """Views (N, S, S, 3) uint8.

    Args:
        pixels: (P,) int32, as in `DevicePixels`.
        starts: (N,) int64, the first pixel of each image.
        sides: (N, 2) int32, its width and height.
        numbers: (N, 9) float32: the warp (2 x 3), contrast, brightness, and 1 where `fill` surrounds the image, 0 where
            it is mirrored.
        size: S.
        fill: int32; `None` where it surrounds no image.
    """
    pieces = zip(starts.split(_AT_ONCE), sides.split(_AT_ONCE), numbers.split(_AT_ONCE), strict=True)
    parts = [_drawn(pixels, *piece, size, fill) for piece in pieces]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _drawn(pixels: Tensor, starts: Tensor, sides: Tensor, numbers: Tensor, size: int, fill: Tensor | None) -> Tensor:
    """As `drawn_by_pytorch`, all at once."""
    axis = torch.arange(size, device=pixels.device, dtype=torch.float32)
    columns = numbers[:, :, None, None]
    x, y = (
        columns[:, row] * axis[None, None] + (columns[:, row + 1] * axis[None, :, None] + columns[:, row + 2])
        for row in (0, 3)
    )
    left, top = x.floor(), y.floor()
    right_part, lower_part = (x - left)[..., None], (y - top)[..., None]
    width, height = (sides[:, side, None, None] for side in (0, 1))
    across, down = ((left.int(), left.int() + 1), (top.int(), top.int() + 1))
    inside_row = [mirrored(position, width) for position in across]
    row_starts = [mirrored(position, height) * width for position in down]

    def corner(right: int, below: int) -> Tensor:
        """(N, S, S, 4) float32, one of the four pixels around each position."""
        found = pixels[starts[:, None, None] + (row_starts[below] + inside_row[right])]
        if fill is not None:
            column, row = across[right], down[below]
            is_outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
            found = torch.where(is_outside & (numbers[:, 8, None, None] > 0), fill, found)
        return found.view(torch.uint8).view(*found.shape, _BYTES).float()

    upper = torch.lerp(corner(0, 0), corner(1, 0), right_part)
    lower = torch.lerp(corner(0, 1), corner(1, 1), right_part)
    values = torch.lerp(upper, lower, lower_part).round_()
    contrast, brightness = (numbers[:, column, None, None, None] for column in (6, 7))
    # The fourth channel is 0.
    mean = values.sum(dim=(1, 2, 3), keepdim=True) / (3 * size * size)
    values = torch.addcmul(mean * (1.0 - contrast), values, contrast).clamp_(0.0, 255.0)
    target = 255.0 * (brightness > 0) * brightness.abs()
    return torch.addcmul(target, values, 1.0 - brightness.abs()).round_().to(torch.uint8)[..., :3].contiguous()


def mirrored(positions: Tensor, length: Tensor) -> Tensor:
    """Positions along a side of this length, mirrored at its first and last pixel where they are outside."""
    period = (2 * length - 2).clamp(min=1)
    folded = positions.abs() % period
    return torch.minimum(folded, (period - folded) * (length > 1))


_KEPT: WeakKeyDictionary[PixelStore, dict[torch.device, DevicePixels | None]] = WeakKeyDictionary()


def bytes_on_device(store: PixelStore) -> int:
    """Bytes that the images of a store take in the memory of a device."""
    return _BYTES * int(store.sizes.prod(axis=1).sum())


def device_pixels(store: PixelStore, device: torch.device) -> DevicePixels | None:
    """The images of a store on an accelerator, copied there once; `None` on the CPU and where they take too much of it.

    They stay as long as the store is in use.
    """
    if device.type == "cpu":
        return None
    kept = _KEPT.setdefault(store, {})
    if device not in kept:
        needed = bytes_on_device(store)
        kept[device] = DevicePixels.of(store, device) if needed and has_room_for(needed, device) else None
    return kept[device]
