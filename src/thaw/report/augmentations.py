"""`augmentations.png` of a run: images as they are, and beside them the random views that training sees."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thaw import atomic
from thaw.data.augment import Augmentation, resolve, view
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.device import derive_seed
from thaw.recipe import Recipe

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
            [
                view(pixels.read(index), pixels.spec, augmentation, seed, index, number)
                for number in range(VIEWS)
            ],
        )
        for name, index in _examples(manifest)[:MOST_ROWS]
    ]
    draw(rows, f"Augmentation: {recipe.augment.preset}", describe(augmentation), file)


def describe(augmentation: Augmentation) -> str:
    """The changes in words, for example "rotation ±15°, zoom ±10 %"."""
    shares = {
        "zoom": augmentation.zoom,
        "shift": augmentation.shift,
        "brightness": augmentation.brightness,
        "contrast": augmentation.contrast,
    }
    changes = [
        f"rotation ±{augmentation.rotation:g}°" if augmentation.rotation else "",
        "mirrored left-right" if augmentation.horizontal_flip else "",
        "mirrored up-down" if augmentation.vertical_flip else "",
        *(f"{name} ±{share * 100:g} %" for name, share in shares.items() if share),
        f"random crop of {augmentation.crop * 100:g} % or more" if augmentation.crop < 1 else "",
    ]
    return ", ".join(filter(None, changes)) or "no change: every view is the image as it is"


def draw(rows: Sequence[Row], title: str, details: str, file: Path) -> None:
    """Write a contact sheet as PNG: a row for each image, its plain view on the left, then its random ones."""
    columns = max((len(row.views) for row in rows), default=0)
    width = 2 * _MARGIN + _TILE + _GUTTER + columns * _TILE + max(0, columns - 1) * _GAP
    height = 2 * _MARGIN + _HEADER + len(rows) * (_CAPTION + _TILE + _GUTTER) - _GUTTER
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _INK, ImageFont.load_default(30))
    pen.text(
        (_MARGIN, _MARGIN + 44), _fitted(details, 17, width - 2 * _MARGIN), _QUIET, ImageFont.load_default(17)
    )
    first, top, outline = _MARGIN + _TILE + _GUTTER, _MARGIN + _HEADER, _rounded_tile()
    pen.text((first, top), "views that training sees", _QUIET, ImageFont.load_default(15))
    for row in rows:
        caption = _fitted(row.caption, 17, _TILE)
        pen.text((_MARGIN, top), caption, _INK, ImageFont.load_default(17))
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


def _fitted(text: str, size: int, width: int) -> str:
    """The text in one line, cut off with an ellipsis where it is wider than `width` pixels."""
    text, font = " ".join(text.split()), ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _rounded_tile() -> Image.Image:
    """The outline of a tile, drawn four times as large so that its corners are smooth."""
    side = 4 * _TILE
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), 4 * _CORNER, 255)
    return mask.resize((_TILE, _TILE), Image.Resampling.BOX)
