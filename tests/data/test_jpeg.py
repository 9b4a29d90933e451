import io

import numpy as np
import pytest
from PIL import Image

from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.data.jpeg import END, missing_end
from thaw.errors import UnreadableImage
from thaw.recipe import DecodeSettings

MAX_PIXELS = 1_000_000
SPEC = PixelSpec(32, 1.0, "squash", "bilinear")


def jpeg(contrast: int = 255, **options: object) -> bytes:
    pixels = 128 + np.random.default_rng(0).integers(-contrast // 2, contrast // 2 + 1, (48, 64, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("padding", [b"", b"\0" * 4096])
def test_a_jpeg_without_its_end_marker_is_read_with_a_note(padding: bytes) -> None:
    whole = jpeg(quality=90)
    cut = whole.removesuffix(END)
    assert missing_end(cut, MAX_PIXELS) == END
    decoded = decode(cut + padding, DecodeSettings(), SPEC)
    np.testing.assert_array_equal(decoded.pixels, decode(whole, DecodeSettings(), SPEC).pixels)
    assert decoded.note == "JPEG without end marker"


def test_a_uniform_jpeg_whose_pixels_end_with_zero_bits_is_completed() -> None:
    assert missing_end(jpeg(contrast=0, quality=90).removesuffix(END), MAX_PIXELS) == END


@pytest.mark.parametrize("padding", [b"", b"\0" * 50, b"\0" * 100_000])
def test_a_jpeg_that_lacks_pixels_is_unreadable_whether_or_not_zeros_follow(padding: bytes) -> None:
    whole = jpeg(quality=30)
    for missing in [8, 13, 40, 200, 900]:
        with pytest.raises(UnreadableImage, match="truncated"):
            decode(whole[:-missing] + padding, DecodeSettings(), SPEC)


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("padding", [b"", b"\0" * 4096])
def test_files_without_end_that_may_lack_whole_parts_are_unreadable(options: dict[str, object], padding: bytes) -> None:
    whole = jpeg(**options)
    assert missing_end(whole, MAX_PIXELS) == b""
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(whole.removesuffix(END) + padding, DecodeSettings(), SPEC)


@pytest.mark.parametrize("appended", [b"", b"\0" * 500, b"a comment after the image", b"\xff\xda and a video"])
def test_a_complete_jpeg_needs_nothing(appended: bytes) -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        assert missing_end(jpeg(**options) + appended, MAX_PIXELS) == b""
