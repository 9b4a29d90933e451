"""The pixels of a loaded image as RGB, by the rule for its pixel format that `thaw.data.decode` lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin

from thaw.errors import UnreadableImage

_TIFF_WHITE_IS_ZERO = 0
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Grey levels between two values of a PNG with 2 or 4 bits."""

_WHITE_OF_16_BIT, _WHITE_OF_14_BIT = 65535.0, 16383


@dataclass(frozen=True)
class _Grey:
    """The meaning of the values of a greyscale image with more than 8 bits."""

    white: float
    is_inverted: bool


def to_rgb(image: Image.Image, rawmode: str, white_level: float | None) -> tuple[Image.Image, str]:
    """An image as RGB, and a remark for the user, or "".

    Args:
        image: The image as Pillow has loaded it.
        rawmode: Pillow's name for the pixel format inside a PNG or TIFF file, else "".
        white_level: `decode.white_level`.

    Raises:
        UnreadableImage: The pixel format or a value is not supported.
    """
    if image.mode.startswith("I") or image.mode == "F":
        grey = _grey_of(image, rawmode, white_level)
        rgb = Image.fromarray(_scaled(image, grey)).convert("RGB")
        return rgb, "" if white_level else _remark_on_range(image, grey)
    is_deep = is_deep_colour(image, rawmode)
    if white_level is not None and is_deep:
        raise UnreadableImage(
            f"decode.white_level does not apply to {_deep(image)}; save it as 8-bit, or as 16-bit grey without alpha"
        )
    if "transparency" in image.info and is_deep:
        # Pillow compares its 16 bits with the high bytes.
        raise UnreadableImage("16-bit colour with a transparent value; save it without transparency")
    remark = _remark_on_deep_colour(image) if is_deep else ""
    if not image.has_transparency_data:
        return image.convert("RGB"), remark
    if image.mode == "L":
        # Pillow scales the values of the pixels but not the transparent value.
        image.info["transparency"] *= _GREY_STEPS.get(rawmode, 1)
    with_alpha = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if with_alpha.getchannel("A").getextrema() == (0, 0):
        return with_alpha.convert("RGB"), "alpha ignored because it is 0 everywhere"
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), with_alpha).convert("RGB"), remark


def is_deep_colour(image: Image.Image, rawmode: str) -> bool:
    """Whether Pillow has reduced 16-bit channels to their high byte."""
    return ";16" in rawmode and not image.mode.startswith("I")


def _grey_of(image: Image.Image, rawmode: str, white_level: float | None) -> _Grey:
    if "transparency" in image.info:
        raise UnreadableImage("16-bit grey with a transparent value; save it without transparency")
    default = 1.0 if image.mode == "F" else 4095.0 if "I;12" in rawmode else _WHITE_OF_16_BIT
    # Pillow does not invert grey of more than 8 bits if a TIFF file declares that white is zero.
    is_inverted = (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _TIFF_WHITE_IS_ZERO
    )
    return _Grey(white_level or default, is_inverted)


def _scaled(image: Image.Image, grey: _Grey) -> np.ndarray:
    """Grey values (H, W) of more than 8 bits as uint8."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise UnreadableImage("contains NaN or infinity; replace these values and save it again")
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > grey.white:
        raise UnreadableImage(
            f"contains values from {low:g} to {high:g}, outside 0 to {grey.white:g}; "
            "set decode.white_level to the value of white"
        )
    scaled = np.rint(values * (255.0 / grey.white)).astype(np.uint8)
    return 255 - scaled if grey.is_inverted else scaled


def _deep(image: Image.Image) -> str:
    return "16-bit grey with alpha" if image.mode.startswith("L") else "16-bit colour"


def _remark_on_deep_colour(image: Image.Image) -> str:
    """As `_remark_on_range`, for channels of which Pillow has kept the high byte."""
    values = np.asarray(image)[..., : 1 if image.mode.startswith("L") else 3]
    if values.max() > _WHITE_OF_14_BIT >> 8:
        return ""
    return (
        f"{_deep(image)} without a value above {_WHITE_OF_14_BIT}; if the camera has 10, 12 or 14 bits, scale its "
        "values to 16 bits or save them as 8-bit, or its images lose contrast"
    )


def _remark_on_range(image: Image.Image, grey: _Grey) -> str:
    """A remark where a camera of fewer bits seems to have written 16: nothing else tells why its images are dark."""
    if grey.white != _WHITE_OF_16_BIT or np.asarray(image).max() > _WHITE_OF_14_BIT:
        return ""
    return (
        f"16-bit grey without a value above {_WHITE_OF_14_BIT}; if the camera has 10, 12 or 14 bits, set "
        f"decode.white_level to 1023, 4095 or {_WHITE_OF_14_BIT}, or its images lose contrast"
    )
