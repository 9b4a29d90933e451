"""What features tell, on features that are made to tell it."""

import numpy as np
import pytest

from thaw.inspection import linear_probe as probing
from thaw.inspection.linear_probe import Features


def clusters(images: int = 60, spread: float = 0.6, seed: int = 0) -> Features:
    """Three classes around three centres in 40 dimensions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (3, 40))
    classes = np.arange(images) % 3
    values = (centres[classes] + rng.normal(0, spread, (images, 40))).astype(np.float32)
    return Features(np.arange(images) + 100, values, classes, np.arange(images))


def test_wrong_labels_come_first_and_right_ones_are_left_alone() -> None:
    features = clusters(150)
    wrong = [4, 40, 77, 121]
    features.classes[wrong] = (features.classes[wrong] + 1) % 3
    found = probing.probe(features)
    assert found is not None
    label_errors = probing.find_label_errors(features, found)
    assert {item.row - 100 for item in label_errors} == set(wrong)
    assert all(item.suggested == (item.given + 2) % 3 for item in label_errors)


def test_copies_never_help_their_own_prediction() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (40, 60)).astype(np.float32).repeat(6, axis=0)
    classes = rng.integers(0, 2, 40).repeat(6)
    apart = probing.probe(Features(np.arange(240), values, classes, np.arange(240)))
    together = probing.probe(Features(np.arange(240), values, classes, np.arange(40).repeat(6)))
    assert apart is not None
    assert together is not None
    assert apart.neighbours > 0.9
    assert together.neighbours < 0.75


def test_a_foreign_picture_lies_far_from_its_class() -> None:
    features = clusters(120)
    features.values[[7, 50]] = np.random.default_rng(1).normal(0, 6, (2, 40))
    assert {item.row - 100 for item in probing.find_outliers(features)[:2]} == {7, 50}


@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_too_few_images_are_no_error(images: int) -> None:
    features = clusters(images)
    assert probing.probe(features) is None
    assert probing.learning_curve(features) is None
    assert probing.find_outliers(features) == ()
    assert len(probing.project(features)[0]) == images


def test_the_curve_grows_where_more_images_help() -> None:
    curve = probing.learning_curve(clusters(240, spread=1.6))
    assert curve is not None
    assert curve.measured[0].images < curve.measured[-1].images == 192
    assert curve.measured[-1].accuracy > curve.measured[0].accuracy
    assert [point.images for point in curve.forecast] == [384, 768]
    assert curve.forecast[-1].accuracy >= curve.measured[-1].accuracy - 0.02
