import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin

from thaw.data.decode import MAX_ASPECT, Decoded, decode
from thaw.data.geometry import PixelSpec
from thaw.errors import UnreadableImage
from thaw.recipe import DecodeSettings

SPEC = PixelSpec(32, 1.0, "squash", "bilinear")
ORIENTATION = 0x0112
PHOTOMETRIC, BITS, WHITE_IS_ZERO = 262, 258, 0


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(data: bytes, white_level: float | None = None, **changes: Any) -> Decoded:
    return decode(data, DecodeSettings(white_level=white_level, **changes), SPEC)


def colour(data: bytes, white_level: float | None = None) -> tuple[int, ...]:
    """The colour of a uniform image."""
    pixels = read(data, white_level).pixels
    assert (pixels == pixels[0, 0]).all()
    return tuple(pixels[0, 0].tolist())


def plain(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (32, 32), value)


def scene(width: int = 48, height: int = 40) -> Image.Image:
    """Four different corners on a gradient, which reveal every rotation and crop."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def raw_png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG in a pixel format that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_colour_png(value: int) -> bytes:
    row = b"\0" + struct.pack(">HHH", value, value, value) * 32
    return raw_png(32, 32, 16, 2, row * 32)


@cache
def samples() -> dict[str, bytes]:
    """One file of every file and pixel format."""
    image = scene()
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return {
        "jpeg": encoded(image, "JPEG"),
        "progressive jpeg": encoded(image, "JPEG", progressive=True),
        "cmyk jpeg": encoded(image.convert("CMYK"), "JPEG"),
        "mpo": encoded(image, "MPO", save_all=True, append_images=[image]),
        "png": encoded(image, "PNG"),
        "png, palette": encoded(image.quantize(16), "PNG", transparency=3),
        "png, 16 bit": encoded(deep, "PNG"),
        "png, 16-bit colour": deep_colour_png(1234),
        "tiff": encoded(image, "TIFF"),
        "tiff, lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tiff, jpeg": encoded(image, "TIFF", compression="jpeg"),
        "tiff, pages": encoded(image, "TIFF", save_all=True, append_images=[image, image]),
        "tiff, float": encoded(image.convert("F").point(lambda value: value / 256), "TIFF"),
        "bmp": encoded(image, "BMP"),
        "bmp, palette": encoded(image.quantize(16), "BMP"),
        "webp": encoded(image, "WEBP"),
        "webp, lossless": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "webp, animated": encoded(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
    }


@pytest.mark.parametrize("name", samples())
def test_every_format_is_read(name: str) -> None:
    decoded = read(samples()[name])
    assert decoded.pixels.shape == (32, 32, 3)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.width, decoded.height) == ((32, 32) if "16-bit colour" in name else (48, 40))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (plain("L", 77), (77, 77, 77)),
        (plain("1", 1), (255, 255, 255)),
        (plain("1", 0), (0, 0, 0)),
        (plain("RGB", (10, 20, 30)), (10, 20, 30)),
        (plain("RGBA", (10, 20, 30, 255)), (10, 20, 30)),
        (plain("RGBA", (0, 0, 0, 51)), (204, 204, 204)),
        (plain("LA", (0, 51)), (204, 204, 204)),
        (plain("I;16", 65535), (255, 255, 255)),
        (plain("I;16", 257 * 100), (100, 100, 100)),
        (plain("I;16", 0), (0, 0, 0)),
    ],
)
def test_each_pixel_format_follows_its_rule(image: Image.Image, expected: tuple[int, ...]) -> None:
    assert colour(encoded(image, "PNG")) == expected


@pytest.mark.parametrize(
    ("mode", "value"), [("CMYK", (0, 255, 255, 0)), ("YCbCr", (76, 85, 255)), ("LAB", (136, 208, 195))]
)
def test_other_colour_spaces_become_rgb(mode: str, value: tuple[int, ...]) -> None:
    red, green, blue = colour(encoded(plain(mode, value), "TIFF"))
    assert red > 245 and green < 15 and blue < 15


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    assert colour(encoded(image, "PNG")) == (0, 0, 200)
    assert colour(encoded(image, "PNG", transparency=0)) == (0, 0, 200)
    image.paste(0, (0, 0, 16, 32))
    left, right = read(encoded(image, "PNG", transparency=1)).pixels[0, [0, 31]]
    assert left.tolist() == [200, 0, 0] and right.tolist() == [255, 255, 255]


def bmp_with_alpha(colour: tuple[int, int, int], alpha: int, header: int) -> bytes:
    """A 32-bit BMP with a V4 (108 bytes) or V5 (124 bytes) header, as cameras and screenshots save it."""
    pixels = bytes([*reversed(colour), alpha]) * 32 * 32
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    facts = struct.pack("<IiiHHIIiiII", header, 32, 32, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head = (facts + masks).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + header + len(pixels), 0, 0, 14 + header) + head + pixels


def fully_transparent_palette() -> bytes:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([200, 0, 0, 10, 20, 30])
    return encoded(image, "PNG", transparency=1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bmp_with_alpha((10, 20, 30), 0, 108), (10, 20, 30)),
        (bmp_with_alpha((10, 20, 30), 0, 124), (10, 20, 30)),
        (encoded(plain("RGBA", (10, 20, 30, 0)), "PNG"), (10, 20, 30)),
        (encoded(plain("RGBA", (10, 20, 30, 0)), "TIFF"), (10, 20, 30)),
        (encoded(plain("RGBA", (10, 20, 30, 0)), "WEBP", lossless=True, exact=True), (10, 20, 30)),
        (encoded(plain("LA", (77, 0)), "PNG"), (77, 77, 77)),
        (encoded(plain("RGB", (10, 20, 30)), "PNG", transparency=(10, 20, 30)), (10, 20, 30)),
        (encoded(plain("L", 77), "PNG", transparency=77), (77, 77, 77)),
        (fully_transparent_palette(), (10, 20, 30)),
    ],
)
def test_alpha_that_is_0_everywhere_is_ignored_with_a_note(data: bytes, expected: tuple[int, ...]) -> None:
    assert colour(data) == expected
    assert read(data).note == "alpha ignored because it is 0 everywhere"


def test_one_visible_pixel_makes_alpha_count() -> None:
    image = plain("RGBA", (10, 20, 30, 0))
    image.putpixel((3, 4), (10, 20, 30, 255))
    decoded = read(encoded(image, "PNG"))
    assert decoded.note == ""
    assert (decoded.pixels == 255).all(axis=2).sum() == 32 * 32 - 1
    assert colour(bmp_with_alpha((0, 0, 0), 51, 124)) == (204, 204, 204)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_value_becomes_white_at_every_bit_depth(bits: int) -> None:
    zeros, ones = b"\0" * 2 * bits, b"\xff" * 2 * bits
    data = raw_png(32, 32, bits, 0, (b"\0" + zeros + ones) * 32, png_chunk(b"tRNS", struct.pack(">H", 0)))
    assert colour(data) == (255, 255, 255)
    data = raw_png(32, 32, bits, 0, (b"\0" + zeros + ones) * 32, png_chunk(b"tRNS", struct.pack(">H", 2**bits - 1)))
    pixels = read(data).pixels
    assert (pixels[:, :16] == 0).all() and (pixels[:, 16:] == 255).all()


def test_premultiplied_alpha_is_composited_over_white() -> None:
    image = plain("RGBA", (0, 0, 0, 51))
    data = encoded(image, "TIFF", tiffinfo={TiffImagePlugin.EXTRASAMPLES: 1})
    assert colour(data) == (204, 204, 204)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_full_range(kind: str) -> None:
    ramp = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32)
    pixels = read(encoded(Image.fromarray(ramp), kind)).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.rint(ramp / 257.0))
    assert len(np.unique(pixels)) == 256


def test_the_white_level_maps_to_white() -> None:
    data = encoded(Image.fromarray(np.linspace(0, 1023, 1024).astype(np.uint16).reshape(32, 32)), "PNG")
    assert read(data).pixels.max() == 4
    assert read(data, white_level=1023).pixels.max() == 255


def test_16_bit_files_of_a_camera_with_fewer_bits_are_read_with_a_note() -> None:
    def note(highest: int, white_level: float | None = None) -> str:
        ramp = np.linspace(0, highest, 1024).astype(np.uint16).reshape(32, 32)
        return read(encoded(Image.fromarray(ramp), "PNG"), white_level).note

    assert "if the camera has 10, 12 or 14 bits, set decode.white_level" in note(4095)
    assert note(16383) == note(1023) == note(4095), "one line for all of them"
    assert note(16384) == note(4095, white_level=4095) == ""


@pytest.mark.parametrize(
    ("values", "white_level"),
    [
        (np.full((32, 32), 1024, np.uint16), 1023.0),
        (np.full((32, 32), 70000, np.int32), None),
        (np.full((32, 32), -1, np.int32), None),
        (np.full((32, 32), 1.5, np.float32), None),
        (np.full((32, 32), -0.1, np.float32), None),
    ],
)
def test_values_outside_the_range_are_refused_not_clipped(values: np.ndarray, white_level: float | None) -> None:
    with pytest.raises(UnreadableImage, match=r"set decode\.white_level"):
        read(encoded(Image.fromarray(values), "TIFF"), white_level)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_image_with_a_value_that_is_not_finite_is_refused(value: float) -> None:
    values = np.full((32, 32), 0.5, np.float32)
    values[3, 4] = value
    with pytest.raises(UnreadableImage, match="NaN or infinity"):
        read(encoded(Image.fromarray(values), "TIFF"))


def test_float_images_go_from_zero_to_one_or_to_the_white_level() -> None:
    data = encoded(Image.fromarray(np.full((32, 32), 0.5, np.float32)), "TIFF")
    assert colour(data) == (128, 128, 128)
    assert colour(data, white_level=2.0) == (64, 64, 64)


def test_high_bit_depth_grey_with_white_as_zero_is_inverted() -> None:
    image = plain("I;16", 257 * 55)
    assert colour(encoded(image, "TIFF", tiffinfo={PHOTOMETRIC: WHITE_IS_ZERO})) == (200, 200, 200)
    assert colour(encoded(image, "TIFF")) == (55, 55, 55)


def test_16_bit_colour_keeps_its_high_byte_and_reports_the_mode() -> None:
    decoded = read(deep_colour_png(0x64FF))
    assert (decoded.pixels == 0x64).all()
    assert decoded.mode == "RGB;16"


def test_16_bit_colour_does_not_support_a_white_level() -> None:
    with pytest.raises(UnreadableImage, match="16-bit colour"):
        read(deep_colour_png(100), white_level=4095)


@pytest.mark.parametrize(("level", "is_told"), [(0x0FFF, True), (0x3FFF, True), (0x4000, False)])
def test_16_bit_colour_of_a_camera_with_fewer_bits_gets_a_remark(level: int, is_told: bool) -> None:
    note = read(deep_colour_png(level)).note
    assert note.startswith("16-bit colour without a value above 16383") == is_told


def test_a_white_level_does_not_affect_8_bit_images() -> None:
    assert colour(encoded(plain("RGB", (10, 20, 30)), "PNG"), white_level=4095) == (10, 20, 30)


def test_16_bit_grey_with_a_transparent_value_is_refused() -> None:
    row = b"\0" + struct.pack(">H", 500) * 32
    data = raw_png(32, 32, 16, 0, row * 32, png_chunk(b"tRNS", struct.pack(">H", 500)))
    with pytest.raises(UnreadableImage, match="transparen"):
        read(data)


@pytest.mark.parametrize("value", [500, 60_000])
def test_16_bit_colour_with_a_transparent_value_is_refused(value: int) -> None:
    row = b"\0" + struct.pack(">H", value) * 32 * 3
    data = raw_png(32, 32, 16, 2, row * 32, png_chunk(b"tRNS", struct.pack(">3H", value, value, value)))
    with pytest.raises(UnreadableImage, match="16-bit colour with a transparent value"):
        read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    upright = scene(40, 20)
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 100} if kind != "WEBP" else {"lossless": True}
    decoded = read(encoded(stored, kind, exif=exif, **options))
    assert (decoded.width, decoded.height) == (40, 20)
    expected = read(encoded(upright, "PNG")).pixels.astype(int)
    assert np.abs(decoded.pixels - expected).mean() < 3


def with_exif(kind: str, exif: bytes) -> bytes:
    if kind != "PNG":
        return encoded(scene(), kind, exif=exif)
    data = encoded(scene(), kind)
    return data[:33] + png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) + data[33:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_damaged_exif_data_is_ignored_with_a_note(kind: str) -> None:
    decoded = read(with_exif(kind, b"Exif\0\0garbage that is no EXIF"))
    assert (decoded.pixels == read(encoded(scene(), kind)).pixels).all()
    assert decoded.note == "EXIF data ignored because it is damaged"
    assert read(with_exif(kind, b"Exif\0\0")).note == ""


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "WEBP"]), exif=st.binary(max_size=60))
def test_no_exif_data_makes_an_image_unreadable(kind: str, exif: bytes) -> None:
    for start in (b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0"):
        assert read(with_exif(kind, start + exif)).pixels.shape == (32, 32, 3)


def test_the_first_of_several_pages_is_used_with_a_note() -> None:
    first, second = plain("RGB", "red"), plain("RGB", "blue")
    data = encoded(first, "TIFF", save_all=True, append_images=[second] * 4)
    assert colour(data) == (255, 0, 0)
    assert read(data).note == "first of 5 pages"
    assert read(encoded(first, "TIFF")).note == ""


def test_the_format_is_detected_from_the_content() -> None:
    gif = encoded(scene(), "GIF")
    with pytest.raises(UnreadableImage, match="not a JPEG"):
        read(gif)


@pytest.mark.parametrize("data", [b"", b"\0", b"not an image at all", b"\xff\xd8\xff", b"BM", b"II*\0"])
def test_a_file_that_is_not_an_image_has_a_reason(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"\w+ \w+"):
        read(data)


@pytest.mark.parametrize("name", [name for name in samples() if "pages" not in name and name != "mpo"])
def test_a_file_cut_in_half_is_unreadable(name: str) -> None:
    data = samples()[name]
    with pytest.raises(UnreadableImage):
        read(data[: len(data) // 2])


def test_an_empty_image_is_unreadable() -> None:
    with pytest.raises(UnreadableImage):
        read(raw_png(0, 4, 8, 2, b""))


def test_too_many_pixels_are_refused_from_the_header() -> None:
    claims_a_lot = raw_png(60000, 60000, 8, 2, b"")
    with pytest.raises(UnreadableImage, match=r"decode\.max_pixels=89478485"):
        read(claims_a_lot)
    with pytest.raises(UnreadableImage, match=r"48 x 40 pixels, more than decode\.max_pixels=1000"):
        read(samples()["jpeg"], max_pixels=1000)


@pytest.mark.parametrize(("side", "max_pixels"), [(11000, 89_478_485), (11000, 178_956_970), (14000, 178_956_970)])
def test_a_large_image_causes_no_python_warning(side: int, max_pixels: int) -> None:
    header_alone = raw_png(side, side, 1, 0, b"")
    with warnings.catch_warnings(record=True) as caught, pytest.raises(UnreadableImage):
        warnings.simplefilter("always")
        read(header_alone, max_pixels=max_pixels)
    assert caught == []


@pytest.mark.slow
def test_an_image_above_pillows_limit_is_read_if_max_pixels_allows_it() -> None:
    data = encoded(Image.new("L", (12000, 8000), 9), "PNG")
    with pytest.raises(UnreadableImage, match="max_pixels"):
        read(data)
    assert (read(data, max_pixels=100_000_000).pixels == 9).all()


def test_an_extreme_aspect_ratio_is_refused() -> None:
    assert read(encoded(Image.new("L", (10 * MAX_ASPECT, 10)), "PNG")).width == 10 * MAX_ASPECT
    with pytest.raises(UnreadableImage, match="one side"):
        read(encoded(Image.new("L", (10 * MAX_ASPECT + 1, 10)), "PNG"))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_at_a_reduced_scale(orientation: int) -> None:
    spec = PixelSpec(100, 1.0, "center", "bicubic")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(scene(1700, 900), "JPEG", exif=exif, quality=95)
    reduced = decode(data, DecodeSettings(), spec)
    whole = decode(data, DecodeSettings(), spec, reduce_jpeg=False)
    assert (reduced.width, reduced.height) == ((1700, 900) if orientation == 1 else (900, 1700))
    assert reduced.pixels.shape == whole.pixels.shape
    difference = np.abs(reduced.pixels.astype(int) - whole.pixels)
    assert difference.max() > 0
    assert difference[..., :2].mean() < 2


def test_a_jpeg_that_is_not_much_larger_is_decoded_at_full_scale() -> None:
    spec = PixelSpec(100, 1.0, "center", "bicubic")
    data = encoded(scene(500, 390), "JPEG")
    whole = decode(data, DecodeSettings(), spec, reduce_jpeg=False)
    np.testing.assert_array_equal(decode(data, DecodeSettings(), spec).pixels, whole.pixels)


def test_threads_get_the_same_pixels() -> None:
    files = list(samples().values()) * 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read, files))
    for data, decoded in zip(files, together, strict=True):
        np.testing.assert_array_equal(decoded.pixels, read(data).pixels)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(samples())),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    kept=st.floats(0, 1),
)
def test_damaged_files_are_decoded_or_have_a_reason(name: str, changes: list[tuple[float, int]], kept: float) -> None:
    data = bytearray(samples()[name])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        pixels = read(bytes(data[: int(kept * len(data)) + 1]), max_pixels=1_000_000).pixels
    except UnreadableImage as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        assert pixels.shape == (32, 32, 3)


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([data[:16] for data in samples().values()]), rest=st.binary(max_size=400))
def test_hostile_bytes_after_a_valid_header_have_a_reason(start: bytes, rest: bytes) -> None:
    try:
        read(start + rest, max_pixels=1_000_000)
    except UnreadableImage as error:
        assert str(error)


def test_truncated_files_stay_unreadable_after_other_files() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
