"""Measurements on synthetic features with known structure: probe, label errors, outliers, learning curve, map."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thaw.inspection import learning_curve, linear_probe
from thaw.inspection import outliers as finding_outliers
from thaw.inspection.label_errors import find_label_errors
from thaw.inspection.learning_curve import measure_learning_curve
from thaw.inspection.linear_probe import Features, fit_probe, most_images
from thaw.inspection.outliers import find_outliers
from thaw.inspection.projection import project


def clusters(images: int = 60, spread: float = 0.6, seed: int = 0) -> Features:
    """Three classes around three centres in 40 dimensions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (3, 40))
    classes = np.arange(images) % 3
    values = (centres[classes] + rng.normal(0, spread, (images, 40))).astype(np.float32)
    return Features(np.arange(images) + 100, values, classes, np.arange(images))


def test_exactly_the_planted_label_errors_are_found() -> None:
    features = clusters(150)
    wrong = [4, 40, 77, 121]
    features.classes[wrong] = (features.classes[wrong] + 1) % 3
    probe = fit_probe(features)
    assert probe is not None
    errors = find_label_errors(features, probe)
    assert {error.row - 100 for error in errors} == set(wrong)
    assert all(error.suggested == (error.given + 2) % 3 for error in errors)


def test_duplicates_in_one_group_do_not_inflate_accuracy() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (40, 60)).astype(np.float32).repeat(6, axis=0)
    classes = rng.integers(0, 2, 40).repeat(6)
    separate = fit_probe(Features(np.arange(240), values, classes, np.arange(240)))
    grouped = fit_probe(Features(np.arange(240), values, classes, np.arange(40).repeat(6)))
    assert separate is not None
    assert grouped is not None
    assert separate.knn_accuracy > 0.9
    assert grouped.knn_accuracy < 0.75


def test_a_class_with_one_image_is_trained_on_and_not_tested() -> None:
    features = clusters(150)
    alone = Features(features.rows, features.values, features.classes.copy(), features.groups)
    alone.classes[10] = 3
    known, probe = fit_probe(features), fit_probe(alone)
    assert known is not None and probe is not None
    assert probe.untested == {3: 1} and not probe.tested[10] and probe.tested.sum() == 149
    assert probe.folds == 5 and (probe.probabilities[probe.tested, 3] > 0).all()
    for name in ("accuracy", "balanced_accuracy", "knn_accuracy", "majority_accuracy"):
        assert getattr(probe, name) == pytest.approx(getattr(known, name), abs=0.03)
    assert 110 not in {error.row for error in find_label_errors(alone, probe)}
    curve = measure_learning_curve(alone)
    assert curve is not None and curve.measured[-1].accuracy > 0.9


def test_planted_outliers_come_first() -> None:
    features = clusters(120)
    features.values[[7, 50]] = np.random.default_rng(1).normal(0, 6, (2, 40))
    outliers = find_outliers(features)
    assert {outlier.row - 100 for outlier in outliers[:2]} == {7, 50}
    assert all(outlier.distance_ratio > 1 for outlier in outliers)


def test_a_class_of_mostly_one_image_has_no_outliers() -> None:
    features = clusters(120)
    features.values[features.classes == 0] = features.values[0]
    features.values[:50] += np.random.default_rng(1).normal(0, 1, (50, 40)).astype(np.float32)
    copies = np.flatnonzero(features.classes == 0)
    assert len(copies) > 2 * (features.classes[:50] == 0).sum()
    assert not {outlier.row - 100 for outlier in find_outliers(features)} & set(copies.tolist())


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_too_few_images_give_no_result_and_no_error(images: int) -> None:
    features = clusters(images)
    assert fit_probe(features) is None
    assert measure_learning_curve(features) is None
    assert find_outliers(features) == ()
    assert [point.row for point in project(features)] == features.rows.tolist()


def test_the_learning_curve_rises_where_more_images_help() -> None:
    curve = measure_learning_curve(clusters(240, spread=1.6))
    assert curve is not None
    assert curve.measured[0].images < curve.measured[-1].images == 192
    assert curve.measured[-1].accuracy > curve.measured[0].accuracy
    assert [point.images for point in curve.forecast] == [384, 768]
    assert curve.forecast[-1].accuracy >= curve.measured[-1].accuracy - 0.02


@pytest.mark.parametrize("noise", [0.0, 1e-30, 1e-12, 1e-7])
@pytest.mark.parametrize("level", [0.0, 1e-20, 1.0, 1e4])
def test_features_without_spread_give_no_map_and_no_crash(level: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    values = (level * (1 + noise * rng.normal(0, 1, (24, 40)))).astype(np.float32)
    features = Features(np.arange(24), values, np.arange(24) % 2, np.arange(24))
    assert project(features) == ()
    assert find_outliers(features) == ()
    assert fit_probe(features) is not None


@pytest.mark.parametrize("distinct", [2, 3, 6])
def test_a_few_distinct_features_make_a_map(distinct: int) -> None:
    values = np.random.default_rng(0).normal(0, 1, (distinct, 40)).astype(np.float32)[np.arange(24) % distinct]
    points = project(Features(np.arange(24), values, np.arange(24) % 2, np.arange(24)))
    assert len(points) == 24
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in points)


def counting(fitted: list[int]) -> Callable[..., Any]:
    """Fits a head, and notes on how many images."""
    fit = linear_probe.fit_head

    def fit_and_note(values: np.ndarray, classes: np.ndarray) -> Any:
        fitted.append(len(values))
        return fit(values, classes)

    return fit_and_note


def test_of_many_images_heads_are_fitted_on_a_sample_and_all_images_are_still_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, fitted = clusters(900), list[int]()
    features.classes[500] = (features.classes[500] + 1) % 3
    for module in (linear_probe, learning_curve):
        monkeypatch.setattr(module, "fit_head", counting(fitted))
    all_of_them = fit_probe(features)
    assert all_of_them and all_of_them.sample is None and set(fitted) == {720}
    fitted.clear()
    monkeypatch.setattr(linear_probe, "MOST_IMAGES", 300)
    steps = list[int]()
    probe = fit_probe(features, lambda: steps.append(1))
    assert probe is not None and probe.sample == 300 and len(steps) == 5
    assert len(fitted) == 5 and all(count == pytest.approx(240, abs=3) for count in fitted)
    assert probe.tested.all() and {error.row for error in find_label_errors(features, probe)} == {600}
    curve = measure_learning_curve(features, on_step=lambda: steps.append(1))
    assert curve is not None and curve.measured[-1].images == pytest.approx(240, abs=3)
    assert len(steps) == 5 + learning_curve.STEPS == 29


@pytest.mark.parametrize(("classes", "images"), [(2, 10_000), (200, 10_000), (500, 4_000), (2_000, 10_000)])
def test_a_sample_of_many_classes_is_smaller_but_has_images_of_each(classes: int, images: int) -> None:
    assert most_images(np.arange(classes)) == images


def test_outliers_of_a_large_class_are_found_from_a_sample_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    features, steps = clusters(600), list[int]()
    features.values[[11, 300]] *= -1
    everything = [outlier.row for outlier in find_outliers(features)]
    monkeypatch.setattr(finding_outliers, "MOST_IMAGES", 60)
    found = [outlier.row for outlier in find_outliers(features, lambda: steps.append(1))]
    assert set(found[:2]) == set(everything[:2]) == {111, 400} and len(steps) == 3
