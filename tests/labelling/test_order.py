import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labelling.pools import around_centres, pool
from thaw.classifier.neighbours import unit_rows
from thaw.labelling import strategy
from thaw.labelling.clusters import MAX_CLUSTERS, cluster
from thaw.labelling.order import order_images
from thaw.labelling.pool import UNLABELLED, Pool
from thaw.labelling.strategy import Strategy, choose_strategy
from thaw.labelling.typicality import choose_typical, typicality
from thaw.labelling.uncertainty import choose_uncertain


@given(
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(0, 12),
    st.integers(1, 60),
    st.integers(0, 3),
    st.sampled_from([0, 0.1]),
)
@settings(max_examples=30)
def test_the_order_is_a_permutation_of_the_images_without_a_label(
    centres: int, each: int, labelled: int, number: int, seed: int, spread: float
) -> None:
    values, classes = around_centres(centres, each, seed, spread)
    known = np.where(np.arange(len(values)) < labelled, classes, UNLABELLED)
    images = Pool(values, known, seed)
    found = [choice.position for choice in order_images(images, number).choices]
    assert len(found) == len(set(found)) == min(number, len(images.unlabelled))
    assert set(found) <= set(images.unlabelled.tolist())
    assert found == [choice.position for choice in order_images(images, number).choices]


def test_with_few_labels_every_part_of_the_data_is_covered_first() -> None:
    values, parts = around_centres(6, 10)
    chosen = [choice.position for choice in choose_typical(Pool(values, np.full(60, UNLABELLED)), 6)]
    assert set(parts[chosen]) == set(range(6))
    labelled = Pool(values, np.where(np.isin(np.arange(60), chosen[:3]), 0, UNLABELLED))
    others = [choice.position for choice in choose_typical(labelled, 3)]
    assert set(parts[[*chosen[:3], *others]]) == set(range(6))


def test_larger_clusters_come_first_and_outliers_last() -> None:
    values = np.vstack(
        [around_centres(3, 6)[0], around_centres(1, 20, seed=1)[0], 50 * np.eye(16, dtype=np.float32)[9:10]]
    )
    clusters = cluster(unit_rows(values), 4, 0)
    sizes = np.bincount(clusters)
    assert sizes.tolist() == sorted(sizes, reverse=True)
    chosen = [choice.position for choice in choose_typical(Pool(values, np.full(len(values), UNLABELLED)), 4)]
    assert clusters[chosen[0]] == 0 and chosen[-1] == len(values) - 1


def test_a_typical_image_has_many_near_ones() -> None:
    values = unit_rows(np.vstack([around_centres(1, 15)[0], np.eye(16, dtype=np.float32)[3:4]]))
    assert typicality(values).argmin() == 15
    assert typicality(values[:1]).tolist() == [1.0]


def test_every_start_of_a_long_queue_covers_the_data() -> None:
    values, parts = around_centres(8, 20)
    order = order_images(Pool(values, np.full(len(values), UNLABELLED)), len(values))
    assert set(parts[[choice.position for choice in order.choices[:10]]]) == set(range(8))


def test_uncertain_images_are_of_different_clusters_first() -> None:
    values, parts = around_centres(3, 10)
    probabilities = np.full((30, 2), 0.5)
    probabilities[parts == 0] = (0.51, 0.49)
    chosen = choose_uncertain(Pool(values, np.full(30, UNLABELLED)), probabilities, 3)
    assert set(parts[[choice.position for choice in chosen]]) == {0, 1, 2}
    assert len({choice.cluster for choice in chosen}) == 3


def test_more_clusters_than_images_or_than_is_useful_are_not_made() -> None:
    values = unit_rows(np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32))
    assert cluster(values[:3], 10, 0).max() == 2
    assert cluster(values, 600, 0).max() < MAX_CLUSTERS


def test_images_that_are_all_equal_are_one_cluster() -> None:
    equal = Pool(np.ones((20, 8), np.float32), np.full(20, UNLABELLED))
    assert {choice.cluster for choice in order_images(equal, 5).choices} == {0}


def test_a_head_suggests_labels_once_there_are_two_classes() -> None:
    values, parts = around_centres(4, 12)
    known = np.where(np.arange(48) % 3 == 0, parts, UNLABELLED)
    order = order_images(Pool(values, known), 10)
    assert order.suggested is not None and order.confidence is not None
    assert (order.suggested == parts).mean() > 0.85
    assert ((order.confidence > 1 / 4) & (order.confidence <= 1)).all()
    one_class = order_images(Pool(values, np.where(known == 2, known, UNLABELLED)), 10)
    assert one_class.suggested is None and "4 labels of only one class" in one_class.strategy.why


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
def test_the_separation_is_the_fraction_of_pairs_in_which_the_error_has_the_smaller_margin(
    errors: int, correct: int, seed: int
) -> None:
    margin = np.random.default_rng(seed).random(errors + correct).round(1)
    is_error = np.arange(len(margin)) < errors
    first, second = margin[is_error][:, None], margin[~is_error]
    expected = float((first < second).mean() + (first == second).mean() / 2)
    assert strategy._separation(margin, is_error) == expected


def test_the_separation_of_many_images_takes_no_memory_for_all_pairs() -> None:
    margin = np.random.default_rng(0).random(12_000)
    tracemalloc.start()
    assert strategy._separation(margin, np.arange(12_000) % 2 == 0) == pytest.approx(0.5, abs=0.02)
    (_, peak), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("labelled", [0, 1, 3])
def test_with_hardly_any_label_images_are_typical(labelled: int) -> None:
    images = pool(labelled=labelled)
    assert choose_strategy(images.values, images).reason == "typical"


def test_with_enough_labels_images_are_uncertain() -> None:
    images = pool(labelled=40)
    assert choose_strategy(images.values, images).reason == "uncertain"


def test_a_measurement_is_named_only_where_there_are_errors_and_correct_predictions() -> None:
    values, parts = around_centres(2, 6)
    separate = choose_strategy(values, Pool(values, parts))
    assert separate == Strategy("uncertain", "uncertain images: the head makes no error on 12 labels so far")
    alone = np.arange(4)
    one_each = choose_strategy(values[:4], Pool(values[:4], alone))
    assert one_each == Strategy("typical", "typical images: the head is wrong on all 4 labels so far")
    mixed = choose_strategy(values, Pool(values, np.where(np.arange(12) == 5, 1, parts)))
    assert "area" in mixed.why
