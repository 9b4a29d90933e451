"""Augmented views: random, label-preserving transformations of training images.

A view is one composed affine warp (rotation, flips, zoom, shift, crop) and one lookup table (brightness, contrast),
whatever the number of transformations. Its random numbers come from a counter-based generator keyed by (seed, image,
view), so a view does not depend on order, batch, thread or number of workers.

Small defects stay visible: every view shows at least the fraction `MIN_VISIBLE_AREA` of the square that evaluation
uses, in the worst case of all transformations of its preset together. Custom settings have no such guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from math import cos, radians, sin, sqrt

import cv2
import numpy as np

from thaw.data.geometry import PixelSpec, start_of_crop
from thaw.recipe import AugmentSettings, Preset

VERSION = 2
"""Version of the algorithm: increase it when a view changes for equal settings."""

_MAX_REACH = 2
"""Sides of the view that a warp reaches beyond the plain view at most: rotated, shifted and zoomed out by half."""

_NUMBERS = 11
"""Random numbers of a view."""

_WORD = 1 << 64


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transformations; by default none.

    Attributes:
        rotation: Degrees in either direction.
        horizontal_flip: Mirror half of the views left to right.
        vertical_flip: Mirror half of the views top to bottom.
        zoom: Scale from 1 / (1 + zoom) to 1 + zoom.
        shift: Fraction of the side in either direction.
        brightness: Fraction of black or white that is blended in, which, unlike adding a constant, preserves dark and
            bright defects.
        contrast: Factor from 1 - contrast to 1 + contrast on the distance from the mean.
        crop: Smallest fraction of the area that a random crop keeps.
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
        """Whether views can differ from the plain one."""
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
DEFAULT_PRESET: Preset = "standard"
"""The preset where none is chosen or measured."""

MIN_VISIBLE_AREA: dict[Preset, float] = {"none": 1.0, "light": 0.85, "standard": 0.7, "strong": 0.5}


def preset_of(settings: AugmentSettings) -> Preset:
    """The preset of some settings; the default where it is not decided."""
    return DEFAULT_PRESET if settings.preset == "auto" else settings.preset


def resolve(settings: AugmentSettings) -> Augmentation:
    """The preset, with explicitly given settings replaced."""
    given = {field.name: getattr(settings, field.name) for field in fields(Augmentation)}
    return replace(PRESETS[preset_of(settings)], **{name: value for name, value in given.items() if value is not None})


def of_phase(settings: AugmentSettings, preset: Preset | None) -> Augmentation:
    """The augmentation of a phase that names a preset, or takes the settings of the recipe."""
    return resolve(settings if preset is None else AugmentSettings(preset=preset))


@dataclass(frozen=True)
class ViewTransform:
    """The transformation from the plain view to one augmented view.

    Attributes:
        angle: Rotation in radians.
        flip: -1 or 1 for x and y.
        scale: Magnification.
        shift: (x, y) in sides of the view.
        crop_side: Side of the crop, in sides of the view.
        crop_centre: (x, y) from the centre, in sides of the view.
        brightness: Fraction of white blended in, of black if negative.
        contrast: A factor.
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
    def draw(cls, augmentation: Augmentation, seed: int, image: int, view: int) -> ViewTransform:
        """The random transformation of a view; see `draw_transforms`."""
        return draw_transforms(augmentation, seed, [(image, view)])[0]

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) float64: maps the centre (x, y) of a pixel of the view to its position in the plain view."""
        return matrices([self], size)[0]

    def table(self, mean: float) -> np.ndarray:
        """(256,) uint8: the new value of each pixel value, for a view with this mean."""
        values = (mean + self.contrast * (np.arange(256) - mean)).clip(0.0, 255.0)
        target = 255.0 if self.brightness > 0.0 else 0.0
        return np.rint(values + abs(self.brightness) * (target - values)).astype(np.uint8)


def draw_transforms(augmentation: Augmentation, seed: int, items: Sequence[tuple[int, int]]) -> list[ViewTransform]:
    """The random transformation of each (image, view), from Philox with key `seed` (below 2**128) and that counter.

    Every setting has its own random number, so changing one setting does not affect the others.
    """
    return [_transform(augmentation, draws) for draws in _random_numbers(seed, items).tolist()]


def _random_numbers(seed: int, items: Sequence[tuple[int, int]]) -> np.ndarray:
    """(N, 11) float64 in [0, 1), as `np.random.Generator(np.random.Philox(seed, (image << 128) | (view << 64)))` gives.

    Moving the counter of one generator takes a quarter of the time of making another.
    """
    philox = np.random.Philox(key=seed)
    state = philox.state
    raw = np.empty((len(items), _NUMBERS), np.uint64)
    for row, (image, view) in zip(raw, items, strict=True):
        state["state"]["counter"][:] = (0, view, image % _WORD, image // _WORD)
        philox.state = state
        row[:] = philox.random_raw(_NUMBERS)
    return (raw >> np.uint64(11)) * 2.0**-53


def _transform(augmentation: Augmentation, draws: Sequence[float]) -> ViewTransform:
    turn, mirror_x, mirror_y, zoom, right, down, area, crop_right, crop_down, brightness, contrast = draws
    crop_side = sqrt(1.0 - area * (1.0 - augmentation.crop))
    slack = 1.0 - crop_side
    return ViewTransform(
        angle=radians(_symmetric(turn, augmentation.rotation)),
        flip=(
            -1 if augmentation.horizontal_flip and mirror_x < 0.5 else 1,
            -1 if augmentation.vertical_flip and mirror_y < 0.5 else 1,
        ),
        scale=(1.0 + augmentation.zoom) ** _symmetric(zoom, 1.0),
        shift=(_symmetric(right, augmentation.shift), _symmetric(down, augmentation.shift)),
        crop_side=crop_side,
        crop_centre=(_symmetric(crop_right, slack / 2), _symmetric(crop_down, slack / 2)),
        brightness=_symmetric(brightness, augmentation.brightness),
        contrast=1.0 + _symmetric(contrast, augmentation.contrast),
    )


def matrices(transforms: Sequence[ViewTransform], size: int) -> np.ndarray:
    """(N, 2, 3) float64: map the centre (x, y) of a pixel of each view to its position in the plain view."""
    turns = [((cos(each.angle), -sin(each.angle)), (sin(each.angle), cos(each.angle))) for each in transforms]
    flips, scales = np.array([each.flip for each in transforms]), np.array([each.scale for each in transforms])
    shifts, centres = (np.array([getattr(each, name) for each in transforms]) for name in ("shift", "crop_centre"))
    linear = np.array(turns) * flips[:, None] / scales[:, None, None]
    cropped = linear * np.array([each.crop_side for each in transforms])[:, None, None]
    middle = np.full((2, 1), (size - 1) / 2)
    position = middle + size * (linear @ centres[..., None] + shifts[..., None])
    return np.concatenate([cropped, position - cropped @ middle], axis=2)


@dataclass(frozen=True)
class ViewRenderer:
    """Renders the views of decoded images of one geometry.

    Attributes:
        spec: Geometry of the images.
        augmentation: Ranges of the transformations; `Augmentation()` gives plain views.
        seed: Random seed.
    """

    spec: PixelSpec
    augmentation: Augmentation
    seed: int

    def view(self, pixels: np.ndarray, image: int, number: int, out: np.ndarray | None = None) -> np.ndarray:
        """One view of a decoded image.

        The transformation is relative to the centre of the decoded image, so that real pixels from outside the plain
        view enter at its edges. Outside the decoded image it is mirrored, or in crop mode "border" filled as in
        evaluation. View 0 is the plain view, because that is what a classifier will see.

        Args:
            pixels: The decoded image (H, W, 3) uint8.
            image: Number of the image.
            number: Number of the view; 0 is the plain one.
            out: Where to write the result.

        Returns:
            The view (size, size, 3) uint8, which is `out` if that is given.
        """
        size = self.spec.size
        if out is None:
            out = np.empty((size, size, 3), dtype=np.uint8)
        if number == 0 or not self.augmentation.changes:
            out[...] = self.spec.crop(pixels)
            return out
        transform = ViewTransform.draw(self.augmentation, self.seed, image, number)
        _warp(pixels, self.spec, transform.matrix(size), out)
        return cv2.LUT(out, transform.table(sum(cv2.mean(out)) / 3), dst=out)

    def render(
        self, read: Callable[[int], np.ndarray], items: Sequence[tuple[int, int]], out: np.ndarray, workers: int
    ) -> None:
        """Fill `out` (N, size, size, 3) uint8 with the view of each item.

        OpenCV's own threads stay enabled: disabling them is global, and gains little (224 px on 2 cores: 5,800 views/s
        with them, 7,000 without).

        Args:
            read: Returns a decoded image by its number.
            items: (image, view) of each row of `out`.
            out: Where to write the views.
            workers: Threads.
        """

        def fill(worker: int) -> None:
            for row in range(worker, len(items), workers):
                image, number = items[row]
                self.view(read(image), image, number, out[row])

        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(fill, worker) for worker in range(workers)]:
                done.result()


def _symmetric(draw: float, limit: float) -> float:
    """From [0, 1) to [-limit, limit)."""
    return (2.0 * draw - 1.0) * limit


def _warp(pixels: np.ndarray, spec: PixelSpec, matrix: np.ndarray, out: np.ndarray) -> None:
    """Warp bilinearly, without a low-pass filter: zooming out never skips a pixel, so every pixel still contributes."""
    top, left = (start_of_crop(length, spec.size) for length in pixels.shape[:2])
    # OpenCV cannot warp images with a side above 32,767 pixels, such as long strips.
    above, before = (max(0, start - _MAX_REACH * spec.size) for start in (top, left))
    reach = (1 + 2 * _MAX_REACH) * spec.size
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
