import numpy as np
import pytest

from thaw.inspection.learning_curve import measure_learning_curve
from thaw.inspection.linear_probe import Features
from thaw.metrics import wilson


def features(images_per_class: int) -> Features:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), images_per_class)
    values = rng.normal(size=(len(classes), 8)) + 3 * np.eye(8)[classes]
    return Features(np.arange(len(classes)), values.astype(np.float32), classes, np.arange(len(classes)))


def test_so_few_images_that_fractions_coincide_give_each_size_once_and_no_forecast() -> None:
    curve = measure_learning_curve(features(3))
    assert curve is not None
    sizes = [point.images for point in curve.measured]
    assert len(set(sizes)) == len(sizes) < 3 and not curve.forecast


def test_enough_images_give_a_forecast() -> None:
    curve = measure_learning_curve(features(30))
    assert curve is not None and len(curve.forecast) == 2
    assert curve.forecast[-1].images > curve.measured[-1].images


def test_the_interval_of_a_point_is_that_of_its_folds() -> None:
    """Folds that agree have seen no more than their images, and of few folds the spread is hardly known."""
    curve = measure_learning_curve(features(30))
    assert curve is not None and curve.measured[-1].accuracy == 1.0
    assert curve.measured[-1].low == pytest.approx(wilson(1.0, 72)[0])
    noisy = features(30)
    noisy.values[:] = np.random.default_rng(1).normal(size=noisy.values.shape)
    curve = measure_learning_curve(noisy)
    assert curve is not None and all(point.high - point.low > 0.05 for point in curve.measured)
