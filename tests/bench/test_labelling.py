import numpy as np
import pytest

from bench.labelling import STRATEGIES, Curve, LabelledSet, draw, simulate
from tests.labelling.pools import around_centres


def test_a_curve_crosses_the_target_between_two_rounds() -> None:
    assert Curve({10: 0.5, 20: 0.9, 30: 1.0}, full=1.0, gains=[]).needed() == pytest.approx(25)
    assert Curve({10: 0.97, 20: 0.9}, full=1.0, gains=[]).needed() == 10
    assert Curve({10: 0.5, 20: 0.6}, full=1.0, gains=[]).needed() == 20


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_order_labels_each_image_at_most_once(name: str) -> None:
    values, classes = around_centres(3, 24, spread=1.5)
    images = LabelledSet("synthetic", values, classes, [(0, 1), (40, 41)])
    curve = simulate(images, 0, name)
    assert list(curve.accuracies)[:3] == [10, 20, 30] and max(curve.accuracies) <= 54
    assert 0.4 < curve.full <= 1 and max(curve.accuracies.values()) > 0.4


def test_the_table_compares_with_random_order() -> None:
    values, classes = around_centres(3, 24, spread=1.5)
    images = LabelledSet("synthetic", values, classes, [])
    curves = {name: [simulate(images, seed, name) for seed in range(2)] for name in ("queue", "random")}
    text = draw("synthetic", curves)
    assert "| queue | " in text and "| random | " in text and "| 1.00 |" in text
    assert np.isfinite([curve.needed() for curve in curves["queue"]]).all()
