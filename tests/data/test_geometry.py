import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.recipe import DecodeSettings

MODES = ("center", "squash", "border")
MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)
ODD_SIZES = [(301, 227), (227, 301), (224, 224), (1000, 333), (37, 61), (640, 11), (225, 223), (500, 500)]


def timm_view(image: Image.Image, spec: PixelSpec) -> np.ndarray:
    transform = create_transform(
        input_size=(3, spec.size, spec.size),
        is_training=False,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        interpolation=spec.interpolation,
        mean=MEAN,
        normalize=False,
    )
    return transform(image.convert("RGB")).permute(1, 2, 0).numpy()


def our_view(data: bytes, spec: PixelSpec) -> np.ndarray:
    return spec.crop(decode(data, DecodeSettings(), spec, reduce_jpeg=False).pixels)


def fill_of(mode: str) -> tuple[int, int, int]:
    return FILL if mode == "border" else (0, 0, 0)


def noise(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (96, 0.95), (65, 1.0)])
def test_every_size_of_image_gives_the_view_of_timm(mode: str, interpolation: str, size: int, crop_pct: float) -> None:
    spec = PixelSpec(size, crop_pct, mode, interpolation, fill_of(mode))
    for width, height in ODD_SIZES:
        data = noise(width, height)
        expected = timm_view(Image.open(io.BytesIO(data)), spec)
        np.testing.assert_array_equal(our_view(data, spec), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photos_give_the_view_of_timm(shared_data: Path, mode: str, interpolation: str) -> None:
    spec = PixelSpec(224, 0.875, mode, interpolation, fill_of(mode))
    files = list(islice(sorted((shared_data / "trashnet").rglob("*.jpg")), 0, None, 200))
    assert len(files) > 10
    for file in files:
        np.testing.assert_array_equal(our_view(file.read_bytes(), spec), timm_view(Image.open(file), spec))


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    size=st.integers(32, 300),
    crop_pct=st.floats(0.5, 1.0),
    mode=st.sampled_from(MODES),
)
def test_the_resized_size_is_never_empty_and_never_below_the_target(
    width: int, height: int, size: int, crop_pct: float, mode: str
) -> None:
    spec = PixelSpec(size, crop_pct, mode, "bilinear")
    sides = spec.resized(width, height)
    assert min(sides) >= 1
    assert (max(sides) if mode == "border" else min(sides)) == spec.scale >= size
    assert spec.resized(height, width) == sides[::-1]


@given(height=st.integers(1, 90), width=st.integers(1, 90))
def test_the_crop_is_always_square(height: int, width: int) -> None:
    spec = PixelSpec(48, 1.0, "border", "bilinear", (9, 8, 7))
    view = spec.crop(np.full((height, width, 3), 200, dtype=np.uint8))
    assert view.shape == (48, 48, 3)
    assert view.dtype == np.uint8
    assert (view == 200).all(axis=2).sum() == min(height, 48) * min(width, 48)
