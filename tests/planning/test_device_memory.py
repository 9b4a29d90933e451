from dataclasses import replace

import pytest

from tests.planning.test_plan import MEASURED, planned, why
from thaw import device
from thaw.planning.measurements import Measurements
from thaw.recipe import Recipe

PIXELS, HEAD, TOP = 3_000_000, 2 * 1000 * 2_000, 2 * 1000 * 100_000
"""Bytes of the images, and of two views of the training images at either cut."""


def on_accelerator(free: float) -> Measurements:
    return replace(MEASURED, device_free_bytes=int(free), pixel_bytes=PIXELS)


def where(free: float, recipe: Recipe | None = None) -> list[str]:
    """The phrases for images and features, of the reason for the device."""
    reason = why(planned(recipe or Recipe(), on_accelerator(free)), "device").reason
    return reason.removeprefix(f"{MEASURED.device.reason}; ").split("; ")[1:]


def test_the_plan_says_nothing_of_memory_on_a_cpu() -> None:
    assert why(planned(Recipe()), "device").reason == MEASURED.device.reason


@pytest.mark.parametrize(
    ("free", "stays"),
    [
        (PIXELS / device.SHARE - 100, [False, False, False]),
        (PIXELS / device.SHARE + 100, [True, False, False]),
        (HEAD / device.SHARE + PIXELS + 100, [True, True, False]),
        (TOP / device.SHARE - 100, [True, True, False]),
        (TOP / device.SHARE + PIXELS + 100, [True, True, True]),
    ],
)
def test_the_plan_says_what_stays_in_the_memory_of_an_accelerator(free: float, stays: list[bool]) -> None:
    found = where(free)
    assert [phrase.endswith("stay there") for phrase in found] == stays
    assert [phrase.split(" (")[0] for phrase in found] == [
        "decoded images",
        "features of head",
        "features of fine-tune",
    ]
    assert found[0].startswith("decoded images (3.0 MB)") and "(200 MB)" in found[2]


def test_features_of_eight_bits_are_copied_and_fresh_ones_are_not_counted() -> None:
    recipe = Recipe(cache_dtype="uint8").with_settings({"phases.1.inputs": "fresh"})
    _, *features = where(1 << 40, recipe)
    assert len(features) == 1 and features[0].endswith("are copied batch by batch")
