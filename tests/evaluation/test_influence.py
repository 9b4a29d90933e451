import numpy as np
import pytest
from scipy.stats import spearmanr

from thaw.evaluation.influence import PENALTIES, InfluenceHead, fit_head, most_similar, space_of

CASES = [(2, 8, 0.1), (3, 30, 0.01), (3, 120, 0.1)]
"""Classes, features and penalty."""


def blobs(number: int, images: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of images of some classes, of whose labels a tenth is wrong."""
    random, classes = np.random.default_rng(seed), np.arange(images) % number
    centres = np.random.default_rng(9).normal(size=(number, width))
    features = centres[classes] + random.normal(size=(images, width))
    wrong = random.random(images) < 0.1
    return features.astype(np.float32), np.where(wrong, random.integers(0, number, images), classes)


def fitted(features: np.ndarray, classes: np.ndarray, number: int, penalty: float) -> InfluenceHead:
    return fit_head(space_of(features), features, classes, number, penalty)


def logit(head: InfluenceHead, features: np.ndarray, label: int) -> float:
    logits = np.log(head.probabilities(features[None])[0])
    return float(logits[label] - logits.mean())


@pytest.mark.parametrize(("number", "width", "penalty"), CASES)
def test_influences_are_those_of_refits_without_each_image(number: int, width: int, penalty: float) -> None:
    features, classes = blobs(number, 45, width)
    tested, _ = blobs(number, 6, width, seed=1)
    head = fitted(features, classes, number, penalty)
    labels = head.probabilities(tested).argmax(axis=1)
    without = []
    for image in range(len(features)):
        kept = np.arange(len(features)) != image
        # Of the mean over one image less, the penalty is the same fraction.
        strength = penalty * len(features) / kept.sum()
        refitted = fit_head(head.space, features[kept], classes[kept], number, strength)
        without.append([logit(refitted, one, label) for one, label in zip(tested, labels, strict=True)])
    for one, label, column in zip(tested, labels, np.array(without).T, strict=True):
        effects, found = logit(head, one, label) - column, head.influences(one, int(label))
        assert spearmanr(effects, found).statistic > 0.95
        assert 0.7 < np.median(found / effects) < 1.1
        assert found.argmax() in np.argsort(effects)[-3:]


def test_an_image_with_a_wrong_label_has_the_most_influence_on_one_like_it() -> None:
    random = np.random.default_rng(0)
    features = np.vstack([random.normal(size=(40, 16)) + 3, random.normal(size=(40, 16)) - 3])
    classes = np.repeat([0, 1], 40)
    classes[7] = 1
    head = fitted(features, classes, 2, 0.01)
    assert head.influences(features[7] + 0.1 * random.normal(size=16), 1).argmax() == 7


def test_the_head_that_predicts_most_like_a_classifier_is_chosen() -> None:
    features, classes = blobs(3, 60, 20)
    tested, _ = blobs(3, 30, 20, seed=1)
    for penalty in (PENALTIES[0], PENALTIES[-1]):
        wanted = fitted(features, classes, 3, penalty).probabilities(tested)
        assert most_similar(features, classes, tested, wanted).penalty == penalty


def test_a_class_without_training_images_gets_no_probability() -> None:
    features, classes = blobs(2, 30, 10)
    head = fitted(features, classes * 2, 4, 0.1)
    probabilities = head.probabilities(features)
    assert np.allclose(probabilities[:, [1, 3]], 0) and np.allclose(probabilities.sum(axis=1), 1)
    assert np.isfinite(head.influences(features[0], 2)).all()
