"""Random crops of images with random colours, (size, size, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pretraining.configuration import ImageCounts

_LUMA = np.array([0.299, 0.587, 0.114])


class Crops:
    """Draws crops of photographs and synthetic images; held-out images are used only for validation.

    A crop depends only on the seed and its number.
    """

    def __init__(
        self,
        photographs: Sequence[np.ndarray],
        synthetic: Sequence[np.ndarray],
        settings: ImageCounts,
        size: int,
        seed: int,
    ) -> None:
        self._settings, self._size, self._seed = settings, size, seed
        self._images = {
            held_out: (
                _part(photographs, settings.held_out, held_out),
                _part(synthetic, settings.held_out, held_out),
            )
            for held_out in (False, True)
        }

    def draw(self, numbers: range, validation: bool = False) -> np.ndarray:
        """The crops with these numbers, (N, size, size, 3) uint8."""
        return np.stack([self._draw_one(number, validation) for number in numbers])

    def _draw_one(self, number: int, validation: bool) -> np.ndarray:
        rng = np.random.default_rng((self._seed, int(validation), number))
        pixels = self._augmented(self._random_crop(validation, rng), rng)
        if rng.random() < self._settings.blended:
            other = self._augmented(self._random_crop(validation, rng), rng)
            pixels = _blend(pixels, other, rng)
        return pixels

    def _random_crop(self, validation: bool, rng: np.random.Generator) -> np.ndarray:
        photographs, synthetic = self._images[validation]
        images = synthetic if synthetic and rng.random() < self._settings.synthetic_fraction else photographs
        image = images[rng.integers(len(images))]
        height, width = image.shape[:2]
        area = rng.uniform(self._settings.smallest_crop, 1.0) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide = min(round(np.sqrt(area * ratio)), width)
        high = min(round(np.sqrt(area / ratio)), height)
        top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
        crop = image[top : top + high, left : left + wide]
        smaller = wide > self._size and high > self._size
        resized = cv2.resize(
            crop, (self._size, self._size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        return resized[:, ::-1] if rng.random() < 0.5 else resized

    def _augmented(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        values: np.ndarray = pixels.astype(np.float32)
        if rng.random() < 0.1:
            values = np.rot90(values, int(rng.integers(1, 4)))
        luma = (values @ _LUMA.astype(np.float32))[..., None]
        if rng.random() < self._settings.grey:
            values = np.repeat(luma, 3, axis=2)
        elif rng.random() < 0.7:
            values = (luma + (values - luma) * rng.uniform(0.3, 1.7)) * rng.uniform(0.85, 1.15, 3)
        if rng.random() < 0.7:
            middle = values.mean()
            values = (values - middle) * rng.uniform(0.5, 1.5) + middle * rng.uniform(0.6, 1.4)
        if rng.random() < 0.1:
            values = cv2.GaussianBlur(np.ascontiguousarray(values), (0, 0), rng.uniform(0.5, 2.0))
        if rng.random() < 0.1:
            values = values + rng.normal(0, rng.uniform(2, 15), values.shape)
        return np.rint(values.clip(0, 255)).astype(np.uint8)


def _part(images: Sequence[np.ndarray], one_in: int, held_out: bool) -> list[np.ndarray]:
    return [image for number, image in enumerate(images) if (number % one_in == 0) == held_out]


def _blend(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mixup for half of them, CutMix for the other half."""
    if rng.random() < 0.5:
        fraction = rng.uniform(0.2, 0.8)
        return np.rint(fraction * one.astype(np.float32) + (1 - fraction) * other.astype(np.float32)).astype(np.uint8)
    size = len(one)
    high, wide = (rng.uniform(0.3, 0.8, 2) * size).astype(int)
    top, left = rng.integers(size - high + 1), rng.integers(size - wide + 1)
    pasted = one.copy()
    pasted[top : top + high, left : left + wide] = other[top : top + high, left : left + wide]
    return pasted
