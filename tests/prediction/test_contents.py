"""Contents of files travel as fewer bytes than their pixels, and are what the files are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.data.image_file import read_image_file
from thaw.errors import UnreadableImage
from thaw.prediction.contents import pack, unpack
from thaw.recipe import DecodeSettings

SPEC = PixelSpec(size=32, crop_pct=0.875, crop_mode="center", interpolation="bicubic")


def test_a_small_file_travels_as_it_is_a_large_one_as_pixels_and_an_unreadable_one_as_its_reason(
    tmp_path: Path,
) -> None:
    small, large, damaged, missing = (tmp_path / name for name in ("small.png", "large.bmp", "damaged.png", "missing"))
    noise = np.random.default_rng(0).integers(0, 256, (100, 90, 3), np.uint8)
    Image.fromarray(noise[:8, :8]).save(small)
    Image.fromarray(noise).save(large)
    damaged.write_bytes(b"damaged" * 1_000)
    data, parts = pack([small, large, damaged, missing], DecodeSettings(), SPEC)
    assert [kind for kind, _ in parts] == ["file", "pixels", "reason", "reason"]
    assert len(data) == sum(length for _, length in parts) < small.stat().st_size + 32 * 32 * 3 + 200
    content, pixels, *reasons = unpack(data, parts, SPEC.size)
    assert content == small.read_bytes()
    expected = SPEC.crop(decode(read_image_file(large), DecodeSettings(), SPEC).pixels)
    assert isinstance(pixels, np.ndarray) and np.array_equal(pixels, expected)
    assert all(isinstance(reason, UnreadableImage) for reason in reasons)
    assert [str(reason)[:12] for reason in reasons] == ["not a JPEG, ", "no such file"]
