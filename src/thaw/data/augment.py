"""Random changes of training images that keep the label: the views.

A view is one composed affine warp (rotation, flips, zoom, shift, crop) and one lookup table (brightness,
contrast), whatever the number of changes. Its numbers come from a counter-based generator keyed by (seed,
image, view), so a view is the same in any order, batch, thread or number of workers.

Small defects survive: of the square that evaluation sees, every view shows at least the share of the area
that `LEAST_VISIBLE` gives for its preset, worst case of all changes together. Settings of one's own are not
bound by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from math import cos, radians, sin, sqrt

import cv2
import numpy as np

from thaw.data.geometry import PixelSpec
from thaw.recipe import AugmentSettings, Preset

VERSION = 1
"""Increase when a view changes for equal settings."""

_FARTHEST = 2
"""No warp reaches more sides beyond the plain view than this: turned, shifted and zoomed to half its size."""


@dataclass(frozen=True)
class Augmentation:
    """How far a view may differ from the plain one; without arguments, not at all.

    rotation: degrees either way. zoom: scale from 1 / (1 + zoom) to 1 + zoom. shift: share of the side,
    either way. brightness: share of black or white that is mixed in, which unlike adding wipes out neither
    a dark nor a bright defect. contrast: distances from the mean times 1 - contrast to 1 + contrast. crop:
    smallest share of the area that a random crop keeps. Flips happen in half of the views.
    """

    rotation: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    crop: float = 1.0

    @property
    def changes(self) -> bool:
        """Whether a view can differ from the plain one."""
        return self != Augmentation()


PRESETS: dict[Preset, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(rotation=5.0, horizontal_flip=True, zoom=0.05, shift=0.02, brightness=0.05, contrast=0.05),
    "standard": Augmentation(rotation=15.0, horizontal_flip=True, zoom=0.1, shift=0.05, brightness=0.1, contrast=0.1),
    "strong": Augmentation(
        rotation=20.0,
        horizontal_flip=True,
        vertical_flip=True,
        zoom=0.15,
        shift=0.08,
        brightness=0.2,
        contrast=0.2,
        crop=0.85,
    ),
}
LEAST_VISIBLE: dict[Preset, float] = {"none": 1.0, "light": 0.85, "standard": 0.7, "strong": 0.5}


def resolve(settings: AugmentSettings) -> Augmentation:
    """The preset, changed by each setting that is given."""
    given = {field.name: getattr(settings, field.name) for field in fields(Augmentation)}
    return replace(PRESETS[settings.preset], **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Change:
    """What one view does to the plain one.

    angle: radians. flip: -1 or 1 for x and y. scale: how much larger things look. shift, crop_centre: (x, y)
    from the middle, in sides. crop_side: side of the crop, in sides. brightness: share of white mixed in, or
    of black where negative. contrast: a factor.
    """

    angle: float
    flip: tuple[int, int]
    scale: float
    shift: tuple[float, float]
    crop_side: float
    crop_centre: tuple[float, float]
    brightness: float
    contrast: float

    @classmethod
    def draw(cls, augmentation: Augmentation, seed: int, image: int, view: int) -> Change:
        """The change of a view, from Philox keyed by `seed` (below 2**128) and counting from (image, view).

        Every change has its own draw, so a setting that is altered leaves the other changes as they were.
        """
        counter = (image << 128) | (view << 64)
        draws = np.random.Generator(np.random.Philox(key=seed, counter=counter)).random(11).tolist()
        turn, mirror, upend, zoom, right, down, area, crop_right, crop_down, brightness, contrast = draws
        crop_side = sqrt(1.0 - area * (1.0 - augmentation.crop))
        slack = 1.0 - crop_side
        return cls(
            angle=radians(_either_way(turn, augmentation.rotation)),
            flip=(
                -1 if augmentation.horizontal_flip and mirror < 0.5 else 1,
                -1 if augmentation.vertical_flip and upend < 0.5 else 1,
            ),
            scale=(1.0 + augmentation.zoom) ** _either_way(zoom, 1.0),
            shift=(_either_way(right, augmentation.shift), _either_way(down, augmentation.shift)),
            crop_side=crop_side,
            crop_centre=(_either_way(crop_right, slack / 2), _either_way(crop_down, slack / 2)),
            brightness=_either_way(brightness, augmentation.brightness),
            contrast=1.0 + _either_way(contrast, augmentation.contrast),
        )

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) float64: takes the centre (x, y) of a pixel of the view to its place in the plain view."""
        turn = np.array([[cos(self.angle), -sin(self.angle)], [sin(self.angle), cos(self.angle)]])
        whole = turn * self.flip / self.scale
        cropped = whole * self.crop_side
        middle = np.full(2, (size - 1) / 2)
        place = middle + size * (whole @ self.crop_centre + self.shift)
        return np.column_stack([cropped, place - cropped @ middle])

    def table(self, mean: float) -> np.ndarray:
        """(256,) uint8: the new value of each pixel value of a view with this mean."""
        values = (mean + self.contrast * (np.arange(256) - mean)).clip(0.0, 255.0)
        mixed_in = 255.0 if self.brightness > 0.0 else 0.0
        return np.rint(values + abs(self.brightness) * (mixed_in - values)).astype(np.uint8)


def view(
    pixels: np.ndarray,
    spec: PixelSpec,
    augmentation: Augmentation,
    seed: int,
    image: int,
    view: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A view (size, size, 3) uint8 of a stored image (H, W, 3) uint8, written into `out` where it is given.

    Turned about the middle of the stored image, so that real pixels beyond the plain view come in at its
    border; beyond the stored image lies its mirror image, in crop mode "border" the fill that evaluation
    pads with.
    """
    if out is None:
        out = np.empty((spec.size, spec.size, 3), dtype=np.uint8)
    if not augmentation.changes:
        out[...] = spec.crop(pixels)
        return out
    change = Change.draw(augmentation, seed, image, view)
    _warp(pixels, spec, change.matrix(spec.size), out)
    return cv2.LUT(out, change.table(sum(cv2.mean(out)) / 3), dst=out)


def render(
    read: Callable[[int], np.ndarray],
    items: Sequence[tuple[int, int]],
    spec: PixelSpec,
    augmentation: Augmentation,
    seed: int,
    out: np.ndarray,
    workers: int,
) -> None:
    """Fill `out` (N, size, size, 3) uint8 with the view of each (image, view); `read` gives stored images.

    `Augmentation()` gives plain views. OpenCV's own threads are left on: to turn them off is global, and
    gains little (224 px on 2 cores: 5,800 views/s with them, 7,000 without).
    """

    def fill(worker: int) -> None:
        for slot in range(worker, len(items), workers):
            image, number = items[slot]
            view(read(image), spec, augmentation, seed, image, number, out[slot])

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(fill, worker) for worker in range(workers)]:
            done.result()


def _either_way(draw: float, most: float) -> float:
    """From [0, 1) to [-most, most)."""
    return (2.0 * draw - 1.0) * most


def _warp(pixels: np.ndarray, spec: PixelSpec, matrix: np.ndarray, out: np.ndarray) -> None:
    """Bilinear without a low-pass filter: a step of the plain view is one stored pixel, and no zoom makes it
    two, so each stored pixel still counts in some pixel of the view.
    """
    top, left = (_start(length, spec.size) for length in pixels.shape[:2])
    # OpenCV cannot warp an image of more than 32,767 pixels a side, such as a long strip.
    above, before = (max(0, start - _FARTHEST * spec.size) for start in (top, left))
    reach = (1 + 2 * _FARTHEST) * spec.size
    from_window = matrix + np.array([[0, 0, left - before], [0, 0, top - above]])
    cv2.warpAffine(
        pixels[above : above + reach, before : before + reach],
        from_window,
        (spec.size, spec.size),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT if spec.crop_mode == "border" else cv2.BORDER_REFLECT_101,
        borderValue=spec.fill,
    )


def _start(length: int, size: int) -> int:
    """Where the plain view begins along a stored side; negative where `PixelSpec.crop` pads."""
    return -((size - length) // 2) if length < size else round((length - size) / 2)
