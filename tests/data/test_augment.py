import itertools
from dataclasses import asdict, fields, replace
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thaw.data.augment import (
    MIN_VISIBLE_AREA,
    PRESETS,
    Augmentation,
    ViewRenderer,
    ViewTransform,
    _random_numbers,
    resolve,
)
from thaw.data.geometry import PixelSpec
from thaw.recipe import AugmentSettings, Preset

SPEC = PixelSpec(32, 0.875, "center", "bicubic")
STILL = ViewTransform(0.0, (1, 1), 1.0, (0.0, 0.0), 1.0, (0.0, 0.0), 0.0, 1.0)
presets = st.sampled_from(sorted(PRESETS))
seeds = st.integers(0, 2**63 - 1)
numbers = st.integers(0, 2**40)
augmentations = st.builds(
    Augmentation,
    rotation=st.floats(0, 180),
    horizontal_flip=st.booleans(),
    vertical_flip=st.booleans(),
    zoom=st.floats(0, 0.99),
    shift=st.floats(0, 0.99),
    brightness=st.floats(0, 0.99),
    contrast=st.floats(0, 0.99),
    crop=st.floats(0.01, 1),
)


def stored(height: int = 36, width: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    down, right = np.mgrid[:height, :width]
    channels = [128 + 60 * np.sin(right / 9.0), 128 + 60 * np.cos(down / 7.0), 60 + right + 0 * down]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def corners_in_the_plain_view(change: ViewTransform, size: int) -> np.ndarray:
    square = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [size - 0.5, size - 0.5], [-0.5, size - 0.5]])
    matrix = change.matrix(size)
    return square @ matrix[:, :2].T + matrix[:, 2]


def visible_area(change: ViewTransform) -> float:
    """Fraction of the plain view that is visible in the view."""
    plain = corners_in_the_plain_view(STILL, 100).astype(np.float32)
    seen = corners_in_the_plain_view(change, 100).astype(np.float32)
    return cv2.intersectConvexConvex(plain, seen)[0] / 100**2


def test_augmentation_has_the_settings_of_the_recipe() -> None:
    assert {"preset", *(field.name for field in fields(Augmentation))} == set(AugmentSettings.model_fields)
    assert set(MIN_VISIBLE_AREA) == set(PRESETS)


@given(seeds, st.lists(st.tuples(st.integers(0, 2**100), numbers), min_size=1, max_size=4))
def test_random_numbers_are_those_of_a_counter_based_generator(seed: int, items: list[tuple[int, int]]) -> None:
    for found, (image, number) in zip(_random_numbers(seed, items), items, strict=True):
        philox = np.random.Philox(key=seed, counter=(image << 128) | (number << 64))
        assert found.tolist() == np.random.Generator(philox).random(11).tolist()


@given(preset=presets, wanted=augmentations)
def test_a_setting_replaces_only_that_of_its_preset(preset: Preset, wanted: Augmentation) -> None:
    assert resolve(AugmentSettings(preset=preset)) == PRESETS[preset]
    assert resolve(AugmentSettings(preset=preset, **asdict(wanted))) == wanted
    turned = resolve(AugmentSettings(preset=preset, rotation=0.0, horizontal_flip=False))
    assert turned == replace(PRESETS[preset], rotation=0.0, horizontal_flip=False)


def test_only_the_strong_preset_flips_up_down_or_crops() -> None:
    for name, preset in PRESETS.items():
        assert preset.vertical_flip == (name == "strong")
        assert (preset.crop < 1.0) == (name == "strong")
        assert preset.changes == (name != "none")


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=seeds)
def test_no_augmentation_gives_the_plain_view(
    crop_mode: Literal["center", "squash", "border"], height: int, width: int, seed: int
) -> None:
    spec = replace(SPEC, crop_mode=crop_mode, fill=(9, 99, 199))
    pixels = stored(height, width)
    assert np.array_equal(ViewRenderer(spec, Augmentation(), seed).view(pixels, 0, 0), spec.crop(pixels))


@given(height=st.integers(32, 90), width=st.integers(32, 90), size=st.sampled_from([31, 32]))
def test_flips_are_exact(height: int, width: int, size: int) -> None:
    spec, pixels = replace(SPEC, size=size), stored(height, width)
    plain = spec.crop(pixels)
    flipped = {(False, False): plain, (True, False): plain[:, ::-1], (False, True): plain[::-1]}
    flipped[True, True] = plain[::-1, ::-1]
    seen = set()
    for number in range(12):
        drawn = ViewRenderer(spec, Augmentation(horizontal_flip=True, vertical_flip=True), 5).view(pixels, 0, number)
        seen |= {how for how, expected in flipped.items() if np.array_equal(drawn, expected)}
        assert any(np.array_equal(drawn, expected) for expected in flipped.values())
    assert seen == set(flipped)


def test_flips_happen_in_half_of_the_views() -> None:
    strong = PRESETS["strong"]
    flips = np.array([ViewTransform.draw(strong, 1, image, 0).flip for image in range(2000)])
    assert np.all(np.abs(flips.mean(axis=0)) < 0.1)
    assert abs(np.mean(flips[:, 0] * flips[:, 1])) < 0.1


@pytest.mark.parametrize("shape", [(36, 36), (36, 64), (70, 33)])
@given(seed=seeds)
def test_the_warp_follows_the_matrix(shape: tuple[int, int], seed: int) -> None:
    augmentation = replace(PRESETS["strong"], brightness=0.0, contrast=0.0)
    pixels = smooth(*shape)
    matrix = ViewTransform.draw(augmentation, seed, 3, 4).matrix(SPEC.size)
    row, column = np.mgrid[: SPEC.size, : SPEC.size]
    right, down = np.einsum("ij,jrc->irc", matrix, np.stack([column, row, np.ones_like(row)]))
    inside = (right >= 0) & (right < SPEC.size - 1) & (down >= 0) & (down < SPEC.size - 1)
    plain = SPEC.crop(pixels).astype(float)
    drawn = ViewRenderer(SPEC, augmentation, seed).view(pixels, 3, 4).astype(float)
    nearest = plain[np.rint(down[inside]).astype(int), np.rint(right[inside]).astype(int)]
    assert inside.mean() > 0.4
    assert np.abs(drawn[inside] - nearest).max() < 12.0


def test_real_pixels_outside_the_plain_view_are_used_before_mirroring() -> None:
    pixels = np.full((36, 60, 3), 200, dtype=np.uint8)
    plain_left = (60 - SPEC.size) // 2
    pixels[:, plain_left : plain_left + SPEC.size] = 50
    drawn = [ViewRenderer(SPEC, Augmentation(shift=0.3), 0).view(pixels, 0, number) for number in range(8)]
    assert any(one.max() == 200 for one in drawn)
    assert all(one[:, 16].max() == 50 for one in drawn)


@given(seed=seeds)
def test_outside_the_image_it_is_mirrored(seed: int) -> None:
    pixels = stored(33, 41)
    mirrored = np.pad(pixels, ((30, 30), (30, 30), (0, 0)), mode="reflect")
    strong = PRESETS["strong"]
    drawn = ViewRenderer(SPEC, strong, seed).view(pixels, 0, 0).astype(int)
    # OpenCV computes places in float32, so another origin may round a pixel otherwise.
    assert np.abs(drawn - ViewRenderer(SPEC, strong, seed).view(mirrored, 0, 0)).max() <= 4


def test_outside_a_padded_image_is_the_fill_of_evaluation() -> None:
    pixels, fill = np.full((20, 32, 3), 120, dtype=np.uint8), (1, 2, 3)
    spec = PixelSpec(32, 1.0, "border", "bicubic", fill)
    drawn = np.stack([ViewRenderer(spec, Augmentation(shift=0.4), 0).view(pixels, 0, number) for number in range(20)])
    is_fill = (drawn == fill).all(axis=-1)
    assert is_fill.mean(axis=(1, 2)).min() >= 10 / 32
    assert (drawn == 120).all(axis=-1).mean() > 0.2


@given(seed=seeds, augmentation=augmentations)
def test_a_strip_too_long_for_opencv_is_warped_like_a_shorter_one(seed: int, augmentation: Augmentation) -> None:
    short = stored(36, 400)
    strip = np.full((36, 40_000, 3), 77, dtype=np.uint8)
    strip[:, 20_000 - 200 : 20_000 + 200] = short
    renderer = ViewRenderer(SPEC, augmentation, seed)
    assert np.array_equal(renderer.view(strip, 0, 0), renderer.view(short, 0, 0))


@given(preset=presets, seed=seeds, image=numbers, number=numbers)
def test_every_view_of_a_preset_shows_the_guaranteed_area(preset: Preset, seed: int, image: int, number: int) -> None:
    assert visible_area(ViewTransform.draw(PRESETS[preset], seed, image, number)) >= MIN_VISIBLE_AREA[preset]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_worst_view_of_a_preset_shows_the_guaranteed_area(name: Preset) -> None:
    most = PRESETS[name]
    crop_side = most.crop**0.5
    slack = (1 - crop_side) / 2
    worst = min(
        visible_area(
            ViewTransform(np.radians(turn), (1, 1), 1 + most.zoom, (right, down), crop_side, (crop_x, crop_y), 0.0, 1.0)
        )
        for turn in np.linspace(-most.rotation, most.rotation, 9)
        for right, down in itertools.product((-most.shift, most.shift), repeat=2)
        for crop_x, crop_y in itertools.product((-slack, slack), repeat=2)
    )
    assert MIN_VISIBLE_AREA[name] <= worst <= MIN_VISIBLE_AREA[name] + 0.1 or name == "none"


@given(augmentation=augmentations, seed=seeds, image=numbers, number=numbers)
def test_a_transform_stays_within_its_settings(augmentation: Augmentation, seed: int, image: int, number: int) -> None:
    change = ViewTransform.draw(augmentation, seed, image, number)
    close = 1e-9
    assert abs(np.degrees(change.angle)) <= augmentation.rotation + close
    assert 1 / (1 + augmentation.zoom) - close <= change.scale <= 1 + augmentation.zoom + close
    assert max(map(abs, change.shift)) <= augmentation.shift + close
    assert augmentation.crop - close <= change.crop_side**2 <= 1 + close
    assert max(map(abs, change.crop_centre)) <= (1 - change.crop_side) / 2 + close
    assert abs(change.brightness) <= augmentation.brightness + close
    assert abs(change.contrast - 1) <= augmentation.contrast + close
    assert np.isfinite(change.matrix(SPEC.size)).all()


@given(augmentation=augmentations, seed=seeds)
def test_no_view_reaches_further_than_two_sides_beyond_the_plain_view(augmentation: Augmentation, seed: int) -> None:
    corners = corners_in_the_plain_view(ViewTransform.draw(augmentation, seed, 0, 0), 100)
    assert -200 <= corners.min() <= corners.max() <= 300


@given(augmentation=augmentations, seed=seeds)
def test_changing_one_setting_does_not_affect_the_others(augmentation: Augmentation, seed: int) -> None:
    change = ViewTransform.draw(augmentation, seed, 1, 2)
    unturned = ViewTransform.draw(replace(augmentation, rotation=0.0), seed, 1, 2)
    assert unturned == replace(change, angle=unturned.angle)


@given(darker=st.floats(-1, 1), lighter=st.floats(-1, 1), contrast=st.floats(0.01, 2), mean=st.floats(0, 255))
def test_brightness_is_monotonic_in_pixel_values(darker: float, lighter: float, contrast: float, mean: float) -> None:
    darker, lighter = sorted((darker, lighter))
    low = replace(STILL, brightness=darker, contrast=contrast).table(mean)
    high = replace(STILL, brightness=lighter, contrast=contrast).table(mean)
    assert np.all(low <= high)
    assert np.all(np.diff(high.astype(int)) >= 0)


def test_contrast_scales_the_distance_from_the_mean() -> None:
    assert np.array_equal(STILL.table(90.0), np.arange(256))
    table = replace(STILL, contrast=0.5).table(100.0)
    assert (table[100], table[80], table[140]) == (100, 90, 120)


@given(seed=seeds)
def test_brightness_blends_in_white_or_black_and_preserves_contrast_of_defects(seed: int) -> None:
    pixels, dim = stored(), Augmentation(brightness=0.2)
    fraction = ViewTransform.draw(dim, seed, 0, 1).brightness
    drawn, plain = ViewRenderer(SPEC, dim, seed).view(pixels, 0, 1), SPEC.crop(pixels)
    expected = plain + fraction * (255.0 - plain) if fraction > 0 else plain * (1 + fraction)
    assert np.abs(drawn - expected).max() <= 0.5
    table = replace(STILL, brightness=fraction).table(128.0).astype(int)
    assert min(table[20] - table[0], table[255] - table[235]) >= 0.8 * 20 - 1


@given(augmentation=augmentations, seed=seeds)
@settings(max_examples=30)
def test_views_are_the_same_in_any_order_batch_and_number_of_workers(augmentation: Augmentation, seed: int) -> None:
    images = [stored(36, 40 + image, seed=image) for image in range(3)]
    items = [(image, number) for image in range(3) for number in range(3)]
    renderer = ViewRenderer(SPEC, augmentation, seed)

    def rendered(items: list[tuple[int, int]], workers: int) -> np.ndarray:
        out = np.zeros((len(items), SPEC.size, SPEC.size, 3), dtype=np.uint8)
        renderer.render(images.__getitem__, items, out, workers)
        return out

    alone = np.stack([renderer.view(images[image], image, number) for image, number in items])
    assert np.array_equal(rendered(items, workers=1), alone)
    assert np.array_equal(rendered(items, workers=4), alone)
    assert np.array_equal(rendered(items[::-1], workers=3)[::-1], alone)
    assert np.array_equal(rendered(items[4:], workers=16), alone[4:])


def test_seed_image_and_view_number_each_change_the_view() -> None:
    pixels, standard = stored(), PRESETS["standard"]
    keys = [(seed, image, number) for seed in range(3) for image in range(3) for number in range(1, 4)]
    drawn = {ViewRenderer(SPEC, standard, seed).view(pixels, image, number).tobytes() for seed, image, number in keys}
    assert len(drawn) == len(keys)


def test_the_first_view_is_the_plain_one() -> None:
    pixels = stored()
    for preset in PRESETS.values():
        assert np.array_equal(ViewRenderer(SPEC, preset, 3).view(pixels, 5, 0), SPEC.crop(pixels))


def test_neighbouring_views_have_independent_random_numbers() -> None:
    even = Augmentation(rotation=0.5, shift=0.5, brightness=0.5, contrast=0.5)
    changes = [ViewTransform.draw(even, 0, image, number) for image in range(3) for number in range(8)]
    drawn = [
        value for one in changes for value in (np.degrees(one.angle), *one.shift, one.brightness, one.contrast - 1)
    ]
    assert len({round(float(value), 9) for value in drawn}) == len(drawn)


def test_the_image_may_be_read_only_and_is_not_modified() -> None:
    pixels = stored()
    pixels.setflags(write=False)
    before = pixels.copy()
    for number in range(4):
        ViewRenderer(SPEC, PRESETS["strong"], 0).view(pixels, 0, number)
    assert np.array_equal(pixels, before)


def test_a_view_is_written_into_the_given_array() -> None:
    pixels, out = stored(), np.zeros((3, 32, 32, 3), dtype=np.uint8)
    drawn = ViewRenderer(SPEC, PRESETS["strong"], 0).view(pixels, 0, 0, out=out[1])
    assert np.shares_memory(drawn, out)
    assert np.array_equal(out[1], ViewRenderer(SPEC, PRESETS["strong"], 0).view(pixels, 0, 0))
    assert not out[0].any()
    assert not out[2].any()


def test_an_unreadable_image_stops_the_batch() -> None:
    def unreadable(image: int) -> np.ndarray:
        raise OSError(f"image {image} is gone")

    out = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(OSError, match="is gone"):
        ViewRenderer(SPEC, PRESETS["light"], 0).render(unreadable, [(0, 0), (1, 0)], out, workers=2)
