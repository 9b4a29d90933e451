"""Views drawn on the device; the CPU is a device too."""

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_augment import augmentations, presets, seeds, smooth
from thaw.data.augment import PRESETS, Augmentation, ViewRenderer
from thaw.data.geometry import PixelSpec
from thaw.device import CPU
from thaw.features.device_views import DevicePixels, device_pixels, mirrored
from thaw.features.view_request import ViewRequest
from thaw.recipe import Preset

CropMode = Literal["center", "squash", "border"]
SIZE = 32
crop_modes = st.sampled_from(["center", "squash", "border"])
sides = st.integers(1, 70)


def store(images: list[np.ndarray], crop_mode: CropMode = "center") -> Any:
    """A pixel store of images that are resized already."""
    flat = np.concatenate([image.reshape(-1) for image in images])

    def fill(array: np.ndarray, start: int) -> None:
        array.reshape(-1)[:] = flat[start : start + array.size]

    return SimpleNamespace(
        spec=PixelSpec(SIZE, 0.875, crop_mode, "bicubic", (10, 120, 250)),
        sizes=np.array([image.shape[:2] for image in images]),
        read=images.__getitem__,
        fill=fill,
    )


def both(
    images: list[np.ndarray], augmentation: Augmentation, seed: int, crop_mode: CropMode = "center"
) -> tuple[np.ndarray, np.ndarray]:
    """The first four views of every image, drawn on the device and by the CPU's renderer."""
    pixels = store(images, crop_mode)
    items = [(image, view) for image in range(len(images)) for view in range(4)]
    expected = np.empty((len(items), SIZE, SIZE, 3), np.uint8)
    ViewRenderer(pixels.spec, augmentation, seed).render(pixels.read, items, expected, 1)
    found = DevicePixels.of(pixels, CPU).render(items, augmentation, seed)
    assert found.dtype == torch.uint8
    return found.numpy().astype(int), expected.astype(int)


@given(presets, seeds, crop_modes, sides, sides)
def test_views_are_those_of_the_cpu_within_two_levels_of_255(
    preset: Preset, seed: int, crop_mode: CropMode, height: int, width: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found, expected = both([smooth(40, 36), noise], PRESETS[preset], seed, crop_mode)
    difference = np.abs(found - expected)
    assert difference.max() <= 2 and difference.mean() < 0.01
    assert np.array_equal(found[::4], expected[::4])


@given(augmentations, seeds, crop_modes)
def test_views_of_any_augmentation_are_nearly_those_of_the_cpu(
    augmentation: Augmentation, seed: int, crop_mode: CropMode
) -> None:
    found, expected = both([smooth(SIZE, 50), smooth(60, SIZE)], augmentation, seed, crop_mode)
    assert np.abs(found - expected).mean() < 0.1


@settings(max_examples=10)
@given(seeds)
def test_a_view_does_not_depend_on_the_others_of_its_batch(seed: int) -> None:
    pixels = DevicePixels.of(store([smooth(40, 36 + number) for number in range(90)]), CPU)
    items = [(number, 1) for number in range(90)]
    together = pixels.render(items, PRESETS["strong"], seed)
    assert all(
        torch.equal(together[[number]], pixels.render([items[number]], PRESETS["strong"], seed))
        for number in (0, 63, 64, 89)
    )


@pytest.mark.parametrize(("length", "expected"), [(1, [0] * 7), (2, [1, 0, 1, 0, 1, 0, 1]), (4, [3, 2, 1, 0, 1, 2, 3])])
def test_positions_outside_are_mirrored_at_the_first_and_last_pixel(length: int, expected: list[int]) -> None:
    assert mirrored(torch.arange(-3, 4), torch.tensor(length)).tolist() == expected


def test_views_that_are_not_drawn_on_a_device_are_copied_there_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.features.view_request.device_pixels", lambda *_: None)
    request = ViewRequest(store([smooth(40, 40)]), np.arange(1), 2, PRESETS["light"], 0)
    accelerator = torch.device("meta")
    assert all(views.device == accelerator for views in request.batches(1, accelerator))
    items = [(0, view) for view in range(2)]
    assert torch.equal(torch.cat(list(request.batches(1, CPU))), request.render(items))


def test_the_cpu_keeps_no_second_copy_of_the_images() -> None:
    assert device_pixels(store([smooth(40, 40)]), CPU) is None
