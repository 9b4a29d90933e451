"""TIFF files whose pixels Pillow gets wrong without an error: read through libtiff where that is right, else refused.

Found with Pillow 13 by comparing 11,000 files with tifffile: every sample format, both byte orders, interleaved and
separate channels, strips and tiles, seven compressions, with and without a predictor.
"""

from __future__ import annotations

from PIL import TiffImagePlugin

from thaw.errors import UnreadableImage

_SEPARATE_CHANNELS = 2
_SIGNED = 2
_WITHOUT_SUBSAMPLING = (1, 1)

_NATIVE_ORDER = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}
"""libtiff returns values in the byte order of the machine, but Pillow expects that of the file for these formats."""


def correct(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make Pillow load the pixels of an opened TIFF file as they are.

    Raises:
        UnreadableImage: Pillow would load other pixels than the file contains.
    """
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, ())
    is_separate = len(image.getbands()) > 1 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _SEPARATE_CHANNELS
    if 8 in bits and _SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        raise UnreadableImage("signed 8-bit values; save it with unsigned values")
    if is_separate and image.mode not in ("RGB", "RGBA", "CMYK"):
        raise UnreadableImage(f"{image.mode} with separate channels; save it as RGB or with interleaved channels")
    if image.mode == "YCbCr" and tags.get(TiffImagePlugin.YCBCRSUBSAMPLING) != _WITHOUT_SUBSAMPLING:
        raise UnreadableImage("uncompressed YCbCr with subsampling; save it as RGB")
    if is_separate and not image.use_load_libtiff:
        # Pillow itself takes each 16-bit channel for an 8-bit one, and does not know the plane of premultiplied alpha.
        deep = ";16N" if 16 in bits else ""
        whole = (0, 0, tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH])
        arguments = (image.mode + deep, False, tags.offset)
        image.tile = [image.tile[0]._replace(codec_name="libtiff", extents=whole, offset=0, args=arguments)]
        image.use_load_libtiff = True
    elif image.use_load_libtiff:
        (tile,) = image.tile
        rawmode, *others = tuple(tile.args or ())
        image.tile = [tile._replace(args=(_NATIVE_ORDER.get(rawmode, rawmode), *others))]
