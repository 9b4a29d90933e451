import numpy as np
import pytest

from tests.labelling.pools import around_centres
from thaw.inspection.learning_curve import CurvePoint, LearningCurve, gain_of_more
from thaw.inspection.linear_probe import Features
from thaw.labelling.outlook import look_ahead


def features(each: int, spread: float = 2.0) -> Features:
    values, classes = around_centres(3, each, spread=spread)
    return Features(np.arange(len(values)), values, classes, np.arange(len(values)))


def curve(*points: tuple[int, float]) -> LearningCurve:
    return LearningCurve(tuple(CurvePoint(images, accuracy, accuracy, accuracy) for images, accuracy in points), ())


def test_the_gain_follows_the_curve() -> None:
    power_law = [(n, 0.9 - n**-0.5) for n in (10, 20, 40, 80, 100)]
    assert gain_of_more(curve(*power_law), 100) == pytest.approx(100**-0.5 - 200**-0.5, abs=0.003)
    assert gain_of_more(curve((10, 0.8), (20, 0.8), (40, 0.8)), 100) == pytest.approx(0, abs=1e-9)
    assert gain_of_more(curve((10, 0.9), (20, 0.8), (40, 0.7)), 100) == 0
    assert gain_of_more(curve((10, 0.5), (20, 0.6)), 100) is None


def test_the_outlook_is_one_sentence_with_the_gain() -> None:
    outlook = look_ahead(features(30))
    assert outlook.accuracy is not None and outlook.gain is not None and outlook.gain >= 0
    assert outlook.sentence.startswith("100 more labels: about +") and "cross-validated" in outlook.sentence


def test_too_few_labels_are_no_base_for_an_estimate() -> None:
    assert look_ahead(features(1)).sentence == "100 more labels: cannot be estimated before every class has two labels"
    assert "from so few" in look_ahead(features(2)).sentence
