"""Near-duplicates are found among synthetic surfaces."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from thaw.data import nearest
from thaw.data.duplicates import near_duplicates
from thaw.data.surfaces import write_surfaces


def recompressed(pixels: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=30)
    return np.asarray(Image.open(stream).convert("RGB"))


def shrunk(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (56, 56), interpolation=cv2.INTER_AREA)


def brightened(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 0.7 + 50).clip(0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recompressed": recompressed,
    "shrunk": shrunk,
    "brightened": brightened,
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned": lambda pixels: np.rot90(pixels),
}


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("surfaces")
    write_surfaces(folder, images_per_class=30, size=128, classes=("ok", "scratch", "stain"))
    return [np.asarray(Image.open(file).convert("RGB")) for file in sorted(folder.rglob("*.png"))]


def pairs(images: list[np.ndarray]) -> set[tuple[int, int]]:
    found = near_duplicates(lambda row: images[row], range(len(images)), workers=2)
    return {(pair.first, pair.second) for pair in found}


def test_different_images_of_one_kind_are_not_duplicates(surfaces: list[np.ndarray]) -> None:
    assert pairs(surfaces) == set()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(surfaces: list[np.ndarray], change: str) -> None:
    copies = [CHANGES[change](image) for image in surfaces[::6]]
    expected = {(6 * number, len(surfaces) + number) for number in range(len(copies))}
    assert pairs([*surfaces, *copies]) == expected


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_images_that_are_compared_in_cells(
    surfaces: list[np.ndarray], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many thousands of images are, of which each is compared with a small part."""
    compared = []
    for name, value in {"MOST_COMPARED": 0, "_CELL": 4, "_PROBES": 4}.items():
        monkeypatch.setattr(nearest, name, value)
    best = nearest._best

    def counted(*given: Any) -> nearest.Neighbours:
        compared.append(given[3].size / len(given[0]) ** 2)
        return best(*given)

    monkeypatch.setattr(nearest, "_best", counted)
    images = [*surfaces, *(CHANGES[change](image) for image in surfaces[::6])]
    expected = {(6 * number, len(surfaces) + number) for number in range(15)}
    progress: list[tuple[int, int]] = []
    found = near_duplicates(images.__getitem__, range(len(images)), 1, lambda *done: progress.append(done))
    assert {(pair.first, pair.second) for pair in found} == expected
    assert sum(compared) < 0.5
    assert progress[-1] == (len(images), len(images))


def test_copies_of_symmetric_images_are_found_among_images_that_are_compared_in_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose mirror images are as similar; each neighbour counts once."""
    rng = np.random.default_rng(0)

    def symmetric() -> np.ndarray:
        shape = cv2.resize(rng.normal(size=(12, 12)), (64, 64), interpolation=cv2.INTER_CUBIC)
        shape += shape[:, ::-1]
        return np.asarray(shape / shape.std())

    shapes = [symmetric() for _ in range(300)]
    shapes += [shape + 0.45 * symmetric() for shape in shapes[:5] for _ in range(10)]
    images = [np.repeat((128 + 40 * shape).clip(0, 255).astype(np.uint8)[:, :, None], 3, 2) for shape in shapes]
    expected = pairs(images)
    assert len(expected) > 50
    for name, value in {"MOST_COMPARED": 0, "_CELL": 32}.items():
        monkeypatch.setattr(nearest, name, value)
    assert len(pairs(images) & expected) > 0.9 * len(expected)


def test_all_copies_of_a_burst_are_found(surfaces: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    burst = [
        np.rint(surfaces[7] + rng.normal(0, 1, surfaces[7].shape)).clip(0, 255).astype(np.uint8) for _ in range(24)
    ]
    found = pairs([*surfaces, *burst])
    assert {(7, len(surfaces) + number) for number in range(24)} <= found
    assert len(found) == 25 * 24 // 2


def test_a_crop_is_not_a_duplicate(surfaces: list[np.ndarray]) -> None:
    assert pairs([*surfaces, surfaces[3][:64, :64]]) == set()


def test_blank_images_are_not_compared(surfaces: list[np.ndarray]) -> None:
    blank = np.full((128, 128, 3), 90, np.uint8)
    assert pairs([blank, blank]) == pairs([blank]) == pairs([]) == set()
    assert pairs([*surfaces, blank, blank]) == set()


def test_pairs_use_the_given_row_numbers(surfaces: list[np.ndarray]) -> None:
    images = dict(enumerate([*surfaces[:20], surfaces[4]], start=100))
    found = near_duplicates(images.__getitem__, list(images), workers=1)
    assert [(pair.first, pair.second) for pair in found] == [(104, 120)]
    assert found[0].correlation == pytest.approx(1.0)


def test_two_photographs_of_one_object_are_found_and_nothing_else(shared_data: Path) -> None:
    files = sorted((shared_data / "trashnet").glob("paper/*.jpg"))[:200]
    found = pairs([np.asarray(Image.open(file).convert("RGB")) for file in files])
    named = {(files[one].stem, files[other].stem) for one, other in found}
    assert {("paper101", "paper108"), ("paper136", "paper148")} <= named
    assert len(named) <= 6
