import numpy as np
import pytest

from tests.labelling.pools import around_centres, pool
from thaw.labelling.outlook import look_ahead
from thaw.labelling.pool import UNLABELLED, Pool


def noisy(labels: int) -> Pool:
    """Images of three classes that overlap, of which some have a label."""
    values, classes = around_centres(3, 200, spread=2.0)
    order = np.random.default_rng(0).permutation(600)
    return Pool(values[order], np.where(np.arange(600) < labels, classes[order], UNLABELLED))


def gain_of(images: Pool) -> float:
    outlook = look_ahead(images.values, images)
    assert outlook is not None and outlook.gain is not None
    return outlook.gain


def test_the_outlook_is_one_sentence_with_the_gain() -> None:
    outlook = look_ahead(noisy(60).values, noisy(60))
    assert outlook is not None and outlook.gain is not None and outlook.changes is not None
    assert 0 < outlook.gain < outlook.changes < 1
    assert outlook.sentence.startswith("100 more labels: about +") and "of predictions)" in outlook.sentence


def test_the_more_labels_there_are_the_less_more_of_them_give() -> None:
    gains = [gain_of(noisy(labels)) for labels in (30, 100, 400)]
    assert gains == sorted(gains, reverse=True)


def test_where_no_prediction_changes_more_labels_give_nothing() -> None:
    images = pool(centres=2, each=40, labelled=60)
    assert gain_of(images) == pytest.approx(0, abs=1e-3)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_no_more_predictions_change_than_there_are_where_features_tell_nothing() -> None:
    rng = np.random.default_rng(1)
    values, classes = rng.normal(0, 1, (300, 100)).astype(np.float32), rng.integers(0, 12, 300)
    images = Pool(values, np.where(np.arange(300) < 24, classes, UNLABELLED), seed=1)
    outlook = look_ahead(values, images)
    assert outlook is not None and outlook.gain is not None and outlook.changes is not None
    assert 0 < outlook.gain < outlook.changes <= 1


def test_too_few_labels_are_no_base_for_an_estimate() -> None:
    outlook = look_ahead(noisy(19).values, noisy(19))
    assert outlook is not None and outlook.gain is None
    assert outlook.sentence == "100 more labels: cannot be estimated from 19 labels"


def test_no_more_labels_are_promised_than_images_are_left() -> None:
    outlook = look_ahead(noisy(570).values, noisy(570))
    assert outlook is not None and outlook.sentence.startswith("30 more labels: about +")
    assert gain_of(noisy(570)) < gain_of(noisy(400))
    last = look_ahead(noisy(599).values, noisy(599))
    assert last is not None and last.sentence.startswith("1 more label: about +") and "it would change" in last.sentence
    assert look_ahead(noisy(600).values, noisy(600)) is None
