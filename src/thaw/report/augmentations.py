"""`augmentations.png` of a run: images as they are, and beside them the random views that training sees."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thaw import atomic
from thaw.data.augment import PRESETS, Augmentation, resolve, view
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.recipe import Recipe
from thaw.seeds import derive_seed

MOST_ROWS, VIEWS = 8, 7

_TILE, _GAP, _GUTTER, _MARGIN = 160, 8, 28, 40
_CAPTION, _HEADER = 30, 118
_INK, _QUIET, _PAPER = "#1c1c1e", "#77777d", "#ffffff"
_CORNER = 6


@dataclass(frozen=True)
class Row:
    """One image: its class, its plain view and some random ones, each (S, S, 3) uint8."""

    caption: str
    plain: np.ndarray
    views: Sequence[np.ndarray]


def draw_run(recipe: Recipe, manifest: Manifest, pixels: PixelStore, file: Path) -> None:
    """Draw a training image of each of the first classes, with the very views that training sees first."""
    augmentation, seed = resolve(recipe.augment), derive_seed(recipe.seed, "views")
    rows = [
        Row(
            name,
            pixels.plain(index),
            [view(pixels.read(index), pixels.spec, augmentation, seed, index, number) for number in range(VIEWS)],
        )
        for name, index in _examples(manifest)[:MOST_ROWS]
    ]
    preset = recipe.augment.preset
    own = "" if augmentation == PRESETS[preset] else ", with settings of your own"
    draw(rows, f"Augmentation: {preset}{own}", describe(augmentation), file)


def describe(augmentation: Augmentation) -> str:
    """The changes in words, for example "rotation ±15°, zoom ±10 %"."""
    fractions = {
        "zoom": augmentation.zoom,
        "shift": augmentation.shift,
        "brightness": augmentation.brightness,
        "contrast": augmentation.contrast,
    }
    changes = [
        f"rotation ±{augmentation.rotation:g}°" if augmentation.rotation else "",
        "mirrored left-right" if augmentation.horizontal_flip else "",
        "mirrored up-down" if augmentation.vertical_flip else "",
        *(f"{name} ±{fraction * 100:g} %" for name, fraction in fractions.items() if fraction),
        f"random crop of {augmentation.crop * 100:g} % or more" if augmentation.crop < 1 else "",
    ]
    return ", ".join(filter(None, changes)) or "no change: every view is the image as it is"


def draw(rows: Sequence[Row], title: str, details: str, file: Path) -> None:
    """Write a contact sheet as PNG: for each image a row with its plain view, then the random ones."""
    first = _MARGIN + _TILE + _GUTTER
    columns = max((len(row.views) for row in rows), default=0)
    width = first + columns * (_TILE + _GAP) - _GAP + _MARGIN
    top = _MARGIN + _HEADER
    height = top + len(rows) * (_CAPTION + _TILE + _GUTTER) - _GUTTER + _MARGIN
    sheet, outline = Image.new("RGB", (width, height), _PAPER), _rounded_tile()
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), title, 30, _INK, width - 2 * _MARGIN)
    _write(pen, (_MARGIN, _MARGIN + 44), details, 17, _QUIET, width - 2 * _MARGIN)
    _write(pen, (first, top), "views that training sees", 15, _QUIET, width - first - _MARGIN)
    for row in rows:
        _write(pen, (_MARGIN, top), row.caption, 17, _INK, _TILE)
        top += _CAPTION
        lefts = [_MARGIN, *(first + column * (_TILE + _GAP) for column in range(len(row.views)))]
        for left, pixels in zip(lefts, [row.plain, *row.views], strict=True):
            tile = Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (left, top), outline)
        top += _TILE + _GUTTER
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    atomic.write_bytes(file, stream.getvalue())


def _examples(manifest: Manifest) -> list[tuple[str, int]]:
    """(class, row) of the first training image of each class that has one."""
    train, targets = manifest.indices("train"), manifest.targets()
    found = []
    for index, name in enumerate(manifest.classes):
        has = targets[train, index] > 0.5 if manifest.task == "multilabel" else targets[train] == index
        found += [(name, int(row)) for row in train[has][:1]]
    return found


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: str, width: int) -> None:
    """One line of text, cut off with an ellipsis where it is wider than `width` pixels."""
    font, line = ImageFont.load_default(size), " ".join(text.split())
    shown = line
    while shown and font.getlength(shown) > width:
        line = line[:-1]
        shown = f"{line}…" if line else ""
    pen.text(place, shown, colour, font)


def _rounded_tile() -> Image.Image:
    """The outline of a tile, drawn four times as large so that its corners are smooth."""
    side = 4 * _TILE
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), 4 * _CORNER, 255)
    return mask.resize((_TILE, _TILE), Image.Resampling.BOX)
