import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.samples import scored
from thaw.metrics import METRICS, Scored, differences, influence_scores, paired_standard_error, values_without_each
from thaw.metrics.jackknife import MAX_BLOCKS, MIN_BLOCKS, jackknife_blocks
from thaw.metrics.weighted import Weighted
from thaw.recipe import Task

PER_EPOCH = [metric for metric in METRICS.values() if metric.per_epoch]


def with_predictions(correct: np.ndarray, groups: np.ndarray | None = None) -> Scored:
    """Two classes, all images of the first; `correct` says which are predicted to be."""
    truth = np.tile([True, False], (len(correct), 1))
    predicted = np.where(correct[:, None], truth, ~truth)
    return Scored("binary", np.where(predicted, 0.9, 0.1), truth, predicted, groups)


def standard_error(first: Scored, second: Scored, metric: str = "accuracy") -> float:
    return paired_standard_error(*(values_without_each(each, METRICS[metric]) for each in (first, second)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_for_accuracy_it_is_the_standard_error_of_the_mean_difference_on_the_same_images(
    correct: list[tuple[bool, bool]],
) -> None:
    first, second = np.array(correct).T
    difference = first.astype(float) - second
    expected = difference.std(ddof=1) / math.sqrt(len(correct))
    assert standard_error(with_predictions(first), with_predictions(second)) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10_000), st.integers(2, 12))
def test_copies_of_an_image_in_one_group_count_as_one_image(seed: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, 15)) < 0.7
    groups = np.repeat(rng.permutation(15), copies)
    alone = standard_error(with_predictions(first), with_predictions(second))
    copied = [with_predictions(np.repeat(each, copies), groups) for each in (first, second)]
    assert standard_error(*copied) == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("metric", PER_EPOCH, ids=lambda metric: metric.name)
@pytest.mark.parametrize("grouped", [False, True])
def test_for_every_monitored_metric_it_agrees_with_the_paired_bootstrap(metric, grouped: bool) -> None:  # type: ignore[no-untyped-def]
    groups = np.random.default_rng(1).integers(60, size=900) if grouped else None
    truth = scored(900, 4, seed=0).truth
    first, second = (scored(900, 4, seed=0, groups=groups), scored(900, 4, seed=0, groups=groups))
    rng = np.random.default_rng(2)
    noisy = second.probabilities * np.exp(rng.normal(size=(900, 4)) * 0.8)
    noisy /= noisy.sum(axis=1, keepdims=True)
    second = Scored("multiclass", noisy, truth, noisy.argmax(axis=1)[:, None] == np.arange(4), groups)
    interval = differences(first, second)[metric.name]
    bootstrapped = (interval.high - interval.low) / (2 * 1.96)
    assert standard_error(first, second, metric.name) == pytest.approx(bootstrapped, rel=0.2)


def test_classifiers_that_predict_alike_differ_by_nothing() -> None:
    sample = scored(50, 3, seed=0)
    assert standard_error(sample, sample) == 0.0


def test_images_of_a_single_group_are_judged_one_by_one() -> None:
    first, second = np.random.default_rng(0).random((2, 50)) < 0.7
    grouped = [with_predictions(each, np.zeros(50, int)) for each in (first, second)]
    assert standard_error(*grouped) == standard_error(with_predictions(first), with_predictions(second)) > 0


@pytest.mark.parametrize(("images", "blocks"), [(7, 7), (MAX_BLOCKS, MAX_BLOCKS), (5_000, MAX_BLOCKS)])
def test_there_are_as_many_blocks_as_images_up_to_a_maximum_all_of_about_the_same_size(
    images: int, blocks: int
) -> None:
    sizes = np.bincount(jackknife_blocks(with_predictions(np.ones(images, bool))))
    assert len(sizes) == blocks and sizes.max() - sizes.min() <= 1


def test_fewer_blocks_are_used_where_a_metric_takes_long() -> None:
    truth = np.zeros((20_000, 200), bool)
    assert jackknife_blocks(Scored("multilabel", truth.astype(float), truth, truth)).max() + 1 == MIN_BLOCKS


@given(st.integers(0, 10_000))
def test_a_group_is_never_divided_and_the_numbers_of_groups_mean_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(700, size=1_500)
    renamed = rng.permutation(700)[groups]
    blocks, other = (jackknife_blocks(with_predictions(np.ones(1_500, bool), names)) for names in (groups, renamed))
    assert (blocks == other).all()
    assert len(np.unique(np.stack([groups, blocks]), axis=1)[0]) == len(np.unique(groups))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 3), st.sampled_from(["multiclass", "multilabel"]))
def test_the_scores_of_images_are_what_the_metric_loses_without_each(
    seed: int, images: int, classes: int, task: Task
) -> None:
    sample = scored(images, classes, seed, task)
    # Probabilities that are tied, too.
    sample = replace(sample, probabilities=sample.probabilities.round(1))
    for name in ("mean_average_precision", "macro_f1"):
        metric = METRICS[name]
        whole = float(np.nan_to_num(metric.compute(Weighted(sample, np.ones((1, images))))[0]))
        without = [
            float(np.nan_to_num(metric.compute(Weighted(sample, weights[None]))[0], nan=whole))
            for weights in 1 - np.eye(images)
        ]
        moved = whole - np.array(without)
        expected = whole + (images - 1) * (moved - moved.mean())
        np.testing.assert_allclose(influence_scores(sample, metric), expected, atol=1e-9)
