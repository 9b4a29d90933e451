"""From the bytes of an image file to RGB pixels, in the same way for training, prediction and serving.

The format is detected from the content, not from the file name: JPEG (with MPO), PNG, TIFF, BMP and WebP are supported.
EXIF rotation is applied; EXIF data that cannot be read is ignored, with a note. Of a file with several pages the first
is used, with a note. A JPEG that lacks only its end marker is read, with a note. Each pixel format has one rule, in
which `white` is `decode.white_level` if that is set:

    RGB                     unchanged
    grey, 1 bit             the grey value in each channel; 0 and 255
    palette                 the palette's colours
    with alpha              composited over white; alpha that is 0 everywhere is ignored, with a note
    CMYK, YCbCr, Lab, HSV   Pillow's conversion to RGB, without colour profiles
    16-bit and 32-bit grey  value * 255 / white, rounded; white is 65535, or 4095 in a 12-bit file
    float                   value * 255 / white, rounded; white is 1.0
    16-bit colour           the high byte of each channel; an error where a white level is set

A value that is negative, above white or not finite makes the image unreadable; values are never clipped. So does a
pixel format that is not listed, such as 64-bit or signed 8-bit.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from thaw.data import jpeg, tiff
from thaw.data.capture import NO_CAPTURE, Capture, capture_of
from thaw.data.geometry import PixelSpec
from thaw.data.rgb import is_deep_colour, to_rgb
from thaw.errors import UnreadableImage, first_line
from thaw.recipe import DecodeSettings

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
MAX_ASPECT = 64
"""A greater ratio of the sides would make the resized image far larger than its file."""

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = tuple(_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8))
_REDUCED_MARGIN = 2
_PILLOW_MODULES = r"PIL\."


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: RGB (H, W, 3) uint8, resized by a `PixelSpec`.
        width: Width of the file in pixels, after EXIF rotation.
        height: Height of the file in pixels, after EXIF rotation.
        mode: Pillow's name of the pixel format, for 16-bit colour followed by ";16".
        note: A remark for the user, or empty.
        capture: When and with what it was captured, as far as its EXIF data tell.
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str
    note: str
    capture: Capture = NO_CAPTURE


def decode(data: bytes, settings: DecodeSettings, spec: PixelSpec, reduce_jpeg: bool = True) -> Decoded:
    """Decode and resize one image; thread-safe.

    Args:
        data: Content of the file.
        settings: White level and largest size.
        spec: The size to resize to.
        reduce_jpeg: Decode a JPEG that is much larger than needed at 1/2, 1/4 or 1/8 of its size, but never at less
            than twice the size that it is then resized to.

    Raises:
        UnreadableImage: The image cannot be decoded; the message is the reason.
    """
    if not data:
        raise UnreadableImage("the file is empty; copy it again")
    _mute_pillow()
    try:
        end = jpeg.missing_end(data, settings.max_pixels)
        with Image.open(io.BytesIO(data + end), formats=FORMATS) as image:
            decoded = _decode_opened(image, settings, spec, reduce_jpeg)
        return replace(decoded, note=_joined("JPEG without end marker", decoded.note)) if end else decoded
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        if data[:4] in TiffImagePlugin.PREFIXES:
            raise UnreadableImage(
                "a TIFF in a pixel format that is not supported, or damaged; save it as 8-bit or 16-bit grey or RGB"
            ) from error
        raise UnreadableImage("not a JPEG, PNG, TIFF, BMP or WebP image, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"more pixels than decode.max_pixels={settings.max_pixels}") from error
    except Exception as error:
        # On damaged and hostile bytes Pillow raises arbitrary exceptions, including AttributeError and MemoryError.
        raise UnreadableImage(f"damaged, or not supported by Pillow ({first_line(error)})") from error


def _mute_pillow() -> None:
    """Silence Pillow's Python warnings (large images, odd metadata); `max_pixels` and notes replace them.

    `catch_warnings` is not thread-safe, and a filter that is set only once is lost when other code restores its own.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[3], "pattern", None) != _PILLOW_MODULES:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


def _decode_opened(image: ImageFile.ImageFile, settings: DecodeSettings, spec: PixelSpec, reduce_jpeg: bool) -> Decoded:
    _check_size(*image.size, settings.max_pixels)
    # Counting the pages opens the first one again.
    pages = getattr(image, "n_frames", 1)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.correct(image)
    # Pillow discards the raw pixel format when it loads an image.
    rawmode = _rawmode(image)
    paged = f"first of {pages} pages" if pages > 1 else ""
    width, height = image.size
    if reduce_jpeg and image.format in ("JPEG", "MPO"):
        least = spec.resized(width, height)
        image.draft(None, (least[0] * _REDUCED_MARGIN, least[1] * _REDUCED_MARGIN))
    image.load()
    transpose, damaged = _exif_transpose(image)
    if transpose in _SWAPS_SIDES:
        width, height = height, width
    rgb, transparent = to_rgb(image, rawmode, settings.white_level)
    upright = rgb if transpose is None else rgb.transpose(transpose)
    resized = upright.resize(spec.resized(width, height), _RESAMPLING[spec.interpolation])
    mode = f"{image.mode};16" if is_deep_colour(image, rawmode) else image.mode
    return Decoded(np.asarray(resized), width, height, mode, _joined(paged, damaged, transparent), capture_of(image))


def _joined(*notes: str) -> str:
    return ", ".join(note for note in notes if note)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnreadableImage(f"{width} x {height} pixels: the image is empty")
    if width * height > max_pixels:
        raise UnreadableImage(f"{width} x {height} pixels, more than decode.max_pixels={max_pixels}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnreadableImage(f"{width} x {height} pixels: one side is over {MAX_ASPECT} times the other")


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the pixel format inside a PNG or TIFF file."""
    return " ".join(str(tile.args) for tile in image.tile) if image.format in ("PNG", "TIFF") else ""


def _exif_transpose(image: Image.Image) -> tuple[Image.Transpose | None, str]:
    """The operation that makes a loaded image upright, and a remark; Pillow rotates TIFF files itself."""
    if image.format == "TIFF":
        return None, ""
    try:
        # For a JPEG, `getexif` does not repeat the error that it had when the file was opened.
        Image.Exif().load(image.info.get("exif", b""))
        return _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1)), ""
    except Exception:
        # As for pixels, damaged bytes raise arbitrary exceptions.
        return None, "EXIF data ignored because it is damaged"
