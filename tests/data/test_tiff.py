import itertools
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pytest

from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.errors import UnreadableImage
from thaw.recipe import DecodeSettings

HEIGHT, WIDTH = 24, 32
SPEC = PixelSpec(HEIGHT, 1.0, "center", "bilinear")
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.dstack([COLUMNS * 8, ROWS * 10, 255 - COLUMNS * 5]).astype(np.uint8)
ALPHA = (255 - ROWS * 5).astype(np.uint8)
GREY, COLOUR, SEPARATED, YCBCR, LAB = 1, 2, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
PREMULTIPLIED, WITH_ALPHA = 1, 2


@dataclass(frozen=True)
class Layout:
    """How a TIFF file stores its values."""

    order: str = "<"
    separate: bool = False
    compressed: bool = False
    strips: int = 1
    reversed_bits: bool = False


EVERY_LAYOUT = [
    Layout(order, separate, compressed, strips)
    for order, separate, compressed, strips in itertools.product("<>", [False, True], [False, True], [1, 3])
]


def tiff(values: np.ndarray, photometric: int, layout: Layout, extra: int | None = None, subsampling: int = 1) -> bytes:
    """A TIFF file with the values (H, W, C), in a layout that Pillow cannot write."""
    values = values.reshape(HEIGHT, WIDTH, -1).astype(values.dtype.newbyteorder(layout.order))
    channels, kind = values.shape[2], {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[values.dtype.kind]
    planes = np.moveaxis(values, 2, 0) if layout.separate else [values]
    parts = [part.tobytes() for plane in planes for part in np.split(plane, layout.strips)]
    if layout.reversed_bits:
        parts = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in part) for part in parts]
    if layout.compressed:
        parts = [zlib.compress(part) for part in parts]
    starts = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    tags = {
        256: ("H", [WIDTH]),
        257: ("H", [HEIGHT]),
        258: ("H", [values.itemsize * 8] * channels),
        259: ("H", [8 if layout.compressed else 1]),
        262: ("H", [photometric]),
        266: ("H", [2 if layout.reversed_bits else 1]),
        273: ("I", starts),
        277: ("H", [channels]),
        278: ("H", [HEIGHT // layout.strips]),
        279: ("I", [len(part) for part in parts]),
        284: ("H", [2 if layout.separate else 1]),
        338: ("H", [extra] if extra is not None else []),
        339: ("H", [kind] * channels),
        530: ("H", [subsampling, subsampling] if photometric == YCBCR else []),
    }
    body, entries = b"".join(parts), b""
    tags = {tag: value for tag, value in tags.items() if value[1]}
    directory = 8 + len(body) + len(body) % 2
    outside = directory + 2 + 12 * len(tags) + 4
    large = b""
    for tag, (code, numbers) in tags.items():
        packed = struct.pack(layout.order + code * len(numbers), *numbers)
        entries += struct.pack(layout.order + "HHI", tag, {"H": 3, "I": 4}[code], len(numbers))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(layout.order + "I", outside + len(large))
            large += packed
    head = {"<": b"II*\0", ">": b"MM\0*"}[layout.order] + struct.pack(layout.order + "I", directory)
    count = struct.pack(layout.order + "H", len(tags))
    return head + body + b"\0" * (len(body) % 2) + count + entries + b"\0\0\0\0" + large


def read(data: bytes) -> np.ndarray:
    return decode(data, DecodeSettings(), SPEC).pixels.astype(int)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return 255 + (colours.astype(int) - 255) * (alpha[..., None] / 255)


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_is_the_same_in_every_layout(layout: Layout, bits: int) -> None:
    deep = np.uint16 if bits == 16 else np.uint8
    scale = 257 if bits == 16 else 1
    premultiplied = np.rint(RGB * (ALPHA[..., None] / 255))

    def stored(values: np.ndarray) -> np.ndarray:
        return values.astype(deep) * deep(scale)

    np.testing.assert_array_equal(read(tiff(stored(RGB), COLOUR, layout)), RGB)
    with_alpha = tiff(stored(np.dstack([RGB, ALPHA])), COLOUR, layout, WITH_ALPHA)
    np.testing.assert_allclose(read(with_alpha), over_white(RGB, ALPHA), atol=1)
    associated = tiff(stored(np.dstack([premultiplied, ALPHA])), COLOUR, layout, PREMULTIPLIED)
    np.testing.assert_allclose(read(associated), over_white(RGB, ALPHA), atol=3)
    separated = tiff(stored(np.dstack([255 - RGB, 0 * ALPHA])), SEPARATED, layout)
    np.testing.assert_array_equal(read(separated), RGB)


@pytest.mark.parametrize("layout", [layout for layout in EVERY_LAYOUT if not layout.separate])
@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_deep_grey_is_the_same_in_every_layout(layout: Layout, dtype: str) -> None:
    grey = RGB[..., 1]
    levels = {"u2": grey.astype("u2") * 257, "i2": grey.astype("i2") * 128, "i4": grey.astype("i4") * 257}
    values = levels.get(dtype, (grey / 255).astype("f4"))
    expected = grey if dtype != "i2" else np.rint(values / 257)
    np.testing.assert_array_equal(read(tiff(values, GREY, layout)), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_reversed_bits_are_reversed(separate: bool, compressed: bool) -> None:
    layout = Layout(separate=separate, reversed_bits=not compressed, compressed=compressed)
    np.testing.assert_array_equal(read(tiff(RGB, COLOUR, layout)), RGB)


@pytest.mark.parametrize(
    ("values", "photometric", "layout", "extra", "reason"),
    [
        (RGB[..., 1].astype(np.int8), GREY, Layout(), None, "signed 8-bit values"),
        (np.dstack([RGB[..., 1], ALPHA]), GREY, Layout(separate=True), WITH_ALPHA, "LA with separate channels"),
        (np.dstack([RGB[..., 1], ALPHA]), GREY, Layout(separate=True, compressed=True), WITH_ALPHA, "LA with"),
        (RGB, LAB, Layout(separate=True), None, "LAB with separate channels"),
        (RGB, LAB, Layout(separate=True, compressed=True), None, "LAB with separate channels"),
        (RGB.astype(np.float64), COLOUR, Layout(), None, "a TIFF in a pixel format that is not supported"),
        (RGB[..., 1] / 255, GREY, Layout(), None, "a TIFF in a pixel format that is not supported"),
        (RGB.astype(np.int16), COLOUR, Layout(), None, "a TIFF in a pixel format that is not supported"),
    ],
)
def test_what_pillow_reads_wrongly_is_refused(
    values: np.ndarray, photometric: int, layout: Layout, extra: int | None, reason: str
) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        read(tiff(values, photometric, layout, extra))


def test_uncompressed_ycbcr_is_read_only_without_subsampling() -> None:
    grey = np.dstack([RGB[..., 1], np.full((HEIGHT, WIDTH, 2), 128, np.uint8)])
    np.testing.assert_allclose(read(tiff(grey, YCBCR, Layout()))[..., 0], RGB[..., 1], atol=1)
    with pytest.raises(UnreadableImage, match="YCbCr with subsampling"):
        read(tiff(grey, YCBCR, Layout(), subsampling=2))
