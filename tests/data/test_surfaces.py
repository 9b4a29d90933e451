import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from thaw.data.surfaces import SurfaceImage, write_surfaces
from thaw.errors import DataError


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> list[SurfaceImage]:
    """Thirty of each class; those of a class are the same without the other classes."""
    return list(write_surfaces(tmp_path_factory.mktemp("surfaces"), images_per_class=30))


def pixels_of(image: SurfaceImage) -> np.ndarray:
    return np.asarray(Image.open(image.file)).astype(np.float32)


def test_each_class_gets_its_folder_of_grey_images(tmp_path: Path) -> None:
    written = write_surfaces(tmp_path, images_per_class=3, size=96)
    assert sorted(image.file for image in written) == sorted(tmp_path.rglob("*.png"))
    assert Counter(image.label for image in written) == dict.fromkeys(("ok", "scratch", "pits", "stain", "crack"), 3)
    for image in written:
        assert image.file.parent.name == image.label
        with Image.open(image.file) as opened:
            assert (opened.mode, opened.size) == ("L", (96, 96))


def test_pixels_depend_on_the_seed_and_not_on_the_other_classes(tmp_path: Path) -> None:
    once = write_surfaces(tmp_path / "once", 2, 64, seed=5)
    again = write_surfaces(tmp_path / "again", 2, 64, seed=5)
    alone = write_surfaces(tmp_path / "alone", 2, 64, seed=5, classes=("crack",))
    other = write_surfaces(tmp_path / "other", 2, 64, seed=6)
    assert [image.file.read_bytes() for image in once] == [image.file.read_bytes() for image in again]
    assert [image.box for image in once] == [image.box for image in again]
    assert [image.file.read_bytes() for image in alone] == [image.file.read_bytes() for image in once[-2:]]
    assert len({image.file.read_bytes() for image in once + other}) == len(once + other)


def test_only_surfaces_of_class_ok_have_no_defect(surfaces: list[SurfaceImage]) -> None:
    for image in surfaces:
        if image.label == "ok":
            assert image.centre is None
            assert image.box is None
            continue
        assert image.centre and image.box
        left, top, right, bottom = image.box
        assert 0 <= left <= image.centre[0] < right <= 160
        assert 0 <= top <= image.centre[1] < bottom <= 160


def test_the_darkest_spot_of_a_crack_is_in_its_box(surfaces: list[SurfaceImage]) -> None:
    hits = []
    for image in (image for image in surfaces if image.label == "crack"):
        pixels = pixels_of(image)
        uneven = cv2.GaussianBlur(pixels, (0, 0), 1.0) - cv2.GaussianBlur(pixels, (0, 0), 12.0)
        row, column = np.unravel_index(uneven.argmin(), uneven.shape)
        assert image.box
        left, top, right, bottom = image.box
        hits.append(left <= column < right and top <= row < bottom)
    assert np.mean(hits) >= 0.9


@pytest.mark.parametrize("label", ["scratch", "pits", "stain", "crack"])
def test_the_box_contains_the_difference_to_a_surface_without_the_defect(
    label: str, surfaces: list[SurfaceImage]
) -> None:
    inside, outside = [], []
    for image in (image for image in surfaces if image.label == label):
        pixels = pixels_of(image)
        uneven = np.abs(cv2.GaussianBlur(pixels, (0, 0), 1.5) - cv2.GaussianBlur(pixels, (0, 0), 25.0))
        assert image.box
        left, top, right, bottom = image.box
        within = np.zeros(pixels.shape, dtype=bool)
        within[top:bottom, left:right] = True
        inside.append(uneven[within].mean())
        outside.append(uneven[~within].mean())
    assert np.mean(np.array(inside) > np.array(outside)) >= 0.75
    assert np.mean(inside) > 1.15 * np.mean(outside)


def test_defects_vary_in_place_and_size(surfaces: list[SurfaceImage]) -> None:
    defects = [image for image in surfaces if image.label != "ok"]
    centres = np.array([image.centre for image in defects])
    boxes = np.array([image.box for image in defects])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert np.all(centres.std(axis=0) > 0.1 * 160)
    assert areas.max() > 5 * areas.min()


def test_the_class_cannot_be_predicted_from_brightness(surfaces: list[SurfaceImage]) -> None:
    means = {
        label: np.mean([pixels_of(image).mean() for image in surfaces if image.label == label])
        for label in ("ok", "scratch", "pits", "stain", "crack")
    }
    assert max(means.values()) - min(means.values()) < 20


def test_an_unknown_class_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'rust'.*ok, scratch, pits, stain, crack"):
        write_surfaces(tmp_path, classes=("ok", "rust"))
    assert not list(tmp_path.iterdir())


def test_the_demo_data_set_is_created_quickly(tmp_path: Path) -> None:
    started = time.process_time()
    write_surfaces(tmp_path, images_per_class=12)
    assert time.process_time() - started < 5.0
