"""Rates of many classes or images are drawn together; of few, each on its own, as ever."""

from dataclasses import replace

import numpy as np
import pytest

from tests.metrics.samples import scored
from thaw.metrics import Estimate, Scored, intervals, rates_of_class, rates_of_classes

NAMES = ("recall", "false_positive_rate", "precision")


def with_pair(images: int, classes: int) -> Scored:
    """Images of which the first two are one group."""
    groups = np.arange(images)
    groups[1] = 0
    return scored(images, classes, 0, groups=groups)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Units that are drawn, each time."""
    found, draw = list[int](), intervals._drawn

    def counting(rng: np.random.Generator, units: int, draws: int) -> np.ndarray:
        found.append(units * draws)
        return draw(rng, units, draws)

    monkeypatch.setattr(intervals, "_drawn", counting)
    return found


def test_the_rates_of_few_images_and_classes_are_those_of_each_class() -> None:
    sample = with_pair(300, 4)
    assert rates_of_classes(sample, range(4)) == tuple(rates_of_class(sample, index) for index in range(4))


def test_the_rates_of_a_large_set_take_one_set_of_draws_and_are_about_those_of_each_class(drawn: list[int]) -> None:
    images = intervals.MANY_IMAGES + 2_000
    sample = with_pair(images, 5)
    together = rates_of_classes(sample, range(5))
    assert sum(drawn) == 1_000 * (images - 1)
    for rates, alone in zip(together, (rates_of_class(sample, index) for index in range(5)), strict=True):
        for name in NAMES:
            found, expected = getattr(rates, name), getattr(alone, name)
            assert isinstance(found, Estimate) and found.value == pytest.approx(expected.value)
            width = expected.high - expected.low
            assert found.low == pytest.approx(expected.low, abs=0.15 * width)
            assert found.high == pytest.approx(expected.high, abs=0.15 * width)


def test_the_rates_of_many_classes_take_one_set_of_draws(drawn: list[int]) -> None:
    classes = 201
    sample = with_pair(600, classes)
    sample = replace(sample, truth=sample.truth & (np.arange(classes) > 0))
    rates = rates_of_classes(sample, range(classes))
    assert sum(drawn) == 1_000 * 599 and rates[0].recall is None and rates[1].recall is not None


def test_rates_without_groups_draw_nothing(drawn: list[int]) -> None:
    sample = replace(with_pair(11_000, 3), groups=None)
    assert rates_of_classes(sample, [1]) == (rates_of_class(sample, 1),) and not drawn
