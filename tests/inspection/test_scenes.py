import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from thaw.inspection.scenes import MAX_CLUSTERS, RECURRING, scene_clusters, scene_distance


def images(scenes: int, each: int, spread: float, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features of images of several scenes, in which the classes differ more than the scenes, and both numbers."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(scenes), each)
    label = rng.integers(0, classes, len(scene))
    of_scene, of_class = rng.normal(0, 1, (scenes, 40)), rng.normal(0, 5, (classes, 40))
    features = of_scene[scene] + of_class[label] + spread * rng.normal(0, 1, (len(scene), 40))
    return (1 + features).astype(np.float32), label, scene


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_clusters_are_scenes_and_not_classes(classes: int) -> None:
    features, label, scene = images(12, 60, spread=0.2, classes=classes)
    clusters = scene_clusters(features, label)
    assert clusters.shape == (720,) and clusters.max() < MAX_CLUSTERS
    assert adjusted_rand_score(scene, clusters) > 0.8
    assert all(len(np.unique(clusters[label == name])) >= 8 for name in range(classes))


def test_a_class_that_varies_more_is_no_cluster() -> None:
    features, label, _ = images(6, 100, spread=0.3)
    features[label == 1] += np.random.default_rng(1).normal(0, 6, (int((label == 1).sum()), 40)).astype(np.float32)
    clusters = scene_clusters(features, label)
    for name in (0, 1):
        assert np.bincount(clusters[label == name]).max() < 0.6 * (label == name).sum()


def test_scenes_recur_where_there_are_some() -> None:
    features, label, _ = images(12, 40, spread=0.2)
    assert scene_distance(features, label) < RECURRING - 0.2
    alone, label, _ = images(480, 1, spread=0.2)
    assert scene_distance(alone, label) > RECURRING


def test_the_same_features_give_the_same_clusters() -> None:
    features, label, _ = images(10, 50, spread=1.0)
    assert (scene_clusters(features, label) == scene_clusters(features.copy(), label)).all()
    assert scene_distance(features, label) == scene_distance(features.copy(), label)


@settings(max_examples=40)
@given(
    number=st.integers(0, 130),
    width=st.integers(1, 5),
    classes=st.integers(1, 4),
    values=st.sampled_from([0, 1, 2, 99]),
    seed=st.integers(0, 99),
)
def test_any_features_are_divided(number: int, width: int, classes: int, values: int, seed: int) -> None:
    """Also features that are constant, or take few values."""
    rng = np.random.default_rng(seed)
    features = rng.integers(0, values + 1, (number, width)).astype(np.float32)
    label = rng.integers(0, classes, number)
    clusters = scene_clusters(features, label)
    assert clusters.shape == (number,)
    assert sorted(set(clusters.tolist())) == list(range(len(set(clusters.tolist()))))
    assert 0 <= scene_distance(features, label) < 3


def test_two_thousand_images_take_less_than_a_few_seconds() -> None:
    """About 0.2 s on one core."""
    rng = np.random.default_rng(0)
    features, label = rng.normal(0, 1, (2000, 400)).astype(np.float32), rng.integers(0, 6, 2000)
    began = time.process_time()
    scene_clusters(features, label)
    scene_distance(features, label)
    assert time.process_time() - began < 5
