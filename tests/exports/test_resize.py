"""The resizing graph gives the same pixels as decoding and cropping."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thaw.data.decode import _RESAMPLING
from thaw.data.geometry import PixelSpec
from thaw.exports.resize import Resize

SPECS = st.builds(
    PixelSpec,
    size=st.sampled_from([32, 33, 64]),
    crop_pct=st.sampled_from([0.5, 0.875, 0.95, 1.0, 1.3]),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    fill=st.just((124, 116, 104)),
)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """Smooth, noisy or black-and-white images from one pixel up, with an aspect ratio of at most 64."""
    short = draw(st.integers(1, 160))
    long = draw(st.integers(short, min(64 * short, 400)))
    shape = (short, long, 3) if draw(st.booleans()) else (long, short, 3)
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    image = generator.integers(0, 256, shape, dtype=np.uint8)
    kind = draw(st.sampled_from(["noisy", "binary", "smooth"]))
    if kind == "binary":
        return (image // 128 * 255).astype(np.uint8)
    if kind == "smooth":
        return np.asarray(Image.fromarray(image[:3, :3]).resize(shape[1::-1], Image.Resampling.BICUBIC))
    return image


def by_pillow(spec: PixelSpec, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    size = spec.resized(width, height)
    return spec.crop(np.asarray(Image.fromarray(image).resize(size, _RESAMPLING[spec.interpolation])))


@given(spec=SPECS, image=images())
@settings(max_examples=300)
def test_the_graph_resizes_crops_and_pads_like_pillow_and_the_geometry(spec: PixelSpec, image: np.ndarray) -> None:
    pixels = torch.from_numpy(image.copy())[None]
    assert np.array_equal(Resize(spec)(pixels)[0].numpy(), by_pillow(spec, image))


@given(spec=SPECS, image=images())
@settings(max_examples=50)
def test_pixels_are_the_same_without_branches(spec: PixelSpec, image: np.ndarray) -> None:
    pixels = torch.from_numpy(image.copy())[None]
    assert torch.equal(Resize(spec, supports_branches=False)(pixels), Resize(spec)(pixels))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_the_crop_is_in_the_same_place_for_every_size(crop_mode: str) -> None:
    """A ramp reveals a crop that is off by one pixel."""
    spec = PixelSpec(32, 0.875, crop_mode, "bilinear")  # type: ignore[arg-type]
    resize = Resize(spec)
    for height in range(20, 90, 3):
        for width in range(20, 90):
            ramp = np.add.outer(np.arange(height), np.arange(width)) * 255 // (height + width)
            image = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
            found = resize(torch.from_numpy(image)[None])[0].numpy()
            assert np.array_equal(found, by_pillow(spec, image)), (height, width)


def test_the_order_of_the_passes_is_pillows_for_tall_images() -> None:
    spec = PixelSpec(64, 1.0, "squash", "lanczos")
    image = (np.random.default_rng(0).integers(0, 2, (300, 20, 3)) * 255).astype(np.uint8)
    assert np.array_equal(Resize(spec)(torch.from_numpy(image)[None])[0].numpy(), by_pillow(spec, image))


@pytest.mark.parametrize(
    "spec",
    [
        PixelSpec(64, 0.875, "center", "bicubic"),
        PixelSpec(64, 0.9, "border", "lanczos", (124, 116, 104)),
        PixelSpec(64, 1.0, "squash", "bilinear"),
    ],
    ids=lambda spec: spec.crop_mode,
)
def test_one_traced_graph_accepts_all_sizes_and_batches(spec: PixelSpec) -> None:
    axes = {axis: torch.export.Dim(name, min=1) for axis, name in enumerate(("batch", "height", "width"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            Resize(spec), (torch.zeros(2, 83, 97, 3, dtype=torch.uint8),), dynamic_shapes=(axes,)
        )
        module = program.module()
    generator = np.random.default_rng(0)
    for count, height, width in (
        (1, 1, 1),
        (1, 1, 40),
        (3, 40, 1),
        (2, 64, 64),
        (1, 500, 31),
        (2, 31, 500),
        (1, 83, 97),
    ):
        batch = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        found = module(torch.from_numpy(batch)).numpy()
        for pixels, image in zip(found, batch, strict=True):
            assert np.array_equal(pixels, by_pillow(spec, image)), (height, width)
