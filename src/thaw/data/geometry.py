"""The geometry of the network's input: how an image is resized and cropped to a square."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Any, Literal

import numpy as np

from thaw.formats import shortened

LARGEST = 16384
"""Pixels of a side: far more than networks take, and few enough for memory."""


@dataclass(frozen=True)
class PixelSpec:
    """The geometry of evaluation; its pixels equal those of timm's evaluation transform.

    An image is resized so that its short side (center), both sides (squash) or its long side (border) are
    `size / crop_pct` pixels; then the central `size` x `size` square is cropped. Missing pixels are filled with `fill`
    (RGB, 0..255): black, or in border mode the mean of the training data, as in timm.
    """

    size: int
    crop_pct: float
    crop_mode: Literal["center", "squash", "border"]
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    fill: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PixelSpec:
        """The geometry whose fields were written as JSON; raises `ValueError`, `KeyError` or `TypeError`."""
        if type(values["size"]) is not int or not 1 <= values["size"] <= LARGEST:
            raise ValueError(f"the size of images is {shortened(str(values['size']))}, not 1 to {LARGEST:,} pixels")
        return cls(**{**values, "fill": tuple(values["fill"])})

    @property
    def scale(self) -> int:
        """The side after resizing, in pixels."""
        return floor(self.size / self.crop_pct)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing an image of this width and height, each at least 1."""
        if self.crop_mode == "squash":
            return self.scale, self.scale
        short, long = min(width, height), max(width, height)
        if self.crop_mode == "border":
            ratio = long / self.scale
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        other = int(self.scale * long / short)
        return (self.scale, other) if width <= height else (other, self.scale)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """The centre (size, size, 3) of a resized image (H, W, 3) uint8: the plain view."""
        if min(pixels.shape[:2]) < self.size:
            pixels = self._padded(pixels)
        height, width = pixels.shape[:2]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return pixels[top : top + self.size, left : left + self.size]

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        above, before = (max(0, self.size - side) // 2 for side in (height, width))
        padded = np.full((max(height, self.size), max(width, self.size), 3), self.fill, dtype=np.uint8)
        padded[above : above + height, before : before + width] = pixels
        return padded


def start_of_crop(length: int, size: int) -> int:
    """Start of the plain view along a side of a resized image; negative where `PixelSpec.crop` pads."""
    return -((size - length) // 2) if length < size else round((length - size) / 2)
