"""`augmentations.png` of a run: a contact sheet of training images and their augmented views."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thaw import atomic
from thaw.data.augment import PRESETS, Augmentation, ViewRenderer, preset_of, resolve
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.recipe import Recipe
from thaw.seeds import derive_seed

MAX_ROWS, VIEWS = 8, 7

_TILE, _GAP, _GUTTER, _MARGIN = 160, 8, 28, 40
_CAPTION, _HEADER = 30, 118
_INK, _QUIET, _PAPER = "#1c1c1e", "#77777d", "#ffffff"
_CORNER = 6


@dataclass(frozen=True)
class Row:
    """One image: its class, its plain view and augmented views, each (S, S, 3) uint8."""

    caption: str
    plain: np.ndarray
    views: Sequence[np.ndarray]


def draw_run(recipe: Recipe, manifest: Manifest, pixels: PixelStore, file: Path) -> None:
    """Write the contact sheet of a run: one training image of each of the first classes, with its first views.

    Args:
        recipe: Augmentation and seed; the views are exactly those that training uses.
        manifest: Manifest with splits.
        pixels: Decoded images.
        file: PNG to write.
    """
    augmentation = resolve(recipe.augment)
    renderer = ViewRenderer(pixels.spec, augmentation, derive_seed(recipe.seed, "views"))
    rows = [
        Row(
            name,
            pixels.plain(index),
            [renderer.view(pixels.read(index), index, number) for number in range(1, VIEWS + 1)],
        )
        for name, index in _examples(manifest)[:MAX_ROWS]
    ]
    preset = preset_of(recipe.augment)
    customized = "" if augmentation == PRESETS[preset] else ", customized"
    draw(rows, f"Augmentation: {preset}{customized}", describe(augmentation), file)


def describe(augmentation: Augmentation) -> str:
    """Describe an augmentation, for example as `rotation ±15°, zoom ±10%`."""
    fractions = {
        "zoom": augmentation.zoom,
        "shift": augmentation.shift,
        "brightness": augmentation.brightness,
        "contrast": augmentation.contrast,
    }
    changes = [
        f"rotation ±{augmentation.rotation:g}°" if augmentation.rotation else "",
        "horizontal flip" if augmentation.horizontal_flip else "",
        "vertical flip" if augmentation.vertical_flip else "",
        *(f"{name} ±{fraction * 100:g}%" for name, fraction in fractions.items() if fraction),
        f"random crop of at least {augmentation.crop * 100:g}%" if augmentation.crop < 1 else "",
    ]
    return ", ".join(filter(None, changes)) or "none: every view is the original image"


def draw(rows: Sequence[Row], title: str, details: str, file: Path) -> None:
    """Write a contact sheet as PNG, one row for each image: its plain view, then its augmented views."""
    first = _MARGIN + _TILE + _GUTTER
    columns = max((len(row.views) for row in rows), default=0)
    width = first + columns * (_TILE + _GAP) - _GAP + _MARGIN
    top = _MARGIN + _HEADER
    height = top + len(rows) * (_CAPTION + _TILE + _GUTTER) - _GUTTER + _MARGIN
    sheet, outline = Image.new("RGB", (width, height), _PAPER), _rounded_tile()
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), title, 30, _INK, width - 2 * _MARGIN)
    _write(pen, (_MARGIN, _MARGIN + 44), details, 17, _QUIET, width - 2 * _MARGIN)
    _write(pen, (first, top), "augmented views used in training", 15, _QUIET, width - first - _MARGIN)
    for row in rows:
        _write(pen, (_MARGIN, top), row.caption, 17, _INK, _TILE)
        top += _CAPTION
        lefts = [_MARGIN, *(first + column * (_TILE + _GAP) for column in range(len(row.views)))]
        for left, pixels in zip(lefts, [row.plain, *row.views], strict=True):
            tile = Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (left, top), outline)
        top += _TILE + _GUTTER
    stream = io.BytesIO()
    # Not optimized: up to two seconds longer for a file that is an eighth smaller.
    sheet.save(stream, "PNG")
    atomic.write_bytes(file, stream.getvalue())


def _examples(manifest: Manifest) -> list[tuple[str, int]]:
    """(class, row) of the first training image of each class that has one."""
    train, targets = manifest.indices("train"), manifest.targets()
    examples = []
    for index, name in enumerate(manifest.classes):
        is_member = targets[train, index] > 0.5 if manifest.task == "multilabel" else targets[train] == index
        examples += [(name, int(row)) for row in train[is_member][:1]]
    return examples


def _write(pen: ImageDraw.ImageDraw, position: tuple[int, int], text: str, size: int, colour: str, width: int) -> None:
    """Write one line of text, truncated with an ellipsis to `width` pixels."""
    font, line = ImageFont.load_default(size), " ".join(text.split())
    shown = line
    while shown and font.getlength(shown) > width:
        line = line[:-1]
        shown = f"{line}…" if line else ""
    pen.text(position, shown, colour, font)


def _rounded_tile() -> Image.Image:
    """Mask of a tile with rounded corners, anti-aliased by drawing it at four times the size."""
    side = 4 * _TILE
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), 4 * _CORNER, 255)
    return mask.resize((_TILE, _TILE), Image.Resampling.BOX)
