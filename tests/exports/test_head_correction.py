"""The last layer is corrected so that its logits are those of the fp32 model, and no more than the images support."""

from __future__ import annotations

import numpy as np

from thaw.exports.head_correction import Linear, corrected_layer

IMAGES, WIDTH, OUTPUTS = 60, 200, 3


def logits_of(layer: Linear, features: np.ndarray) -> np.ndarray:
    return features @ layer.weights.T + layer.bias


def example() -> tuple[Linear, np.ndarray, np.ndarray]:
    """A layer, and features of images to correct on and of other images; a few directions explain most of them."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(5, WIDTH))
    features = rng.normal(size=(2 * IMAGES, 5)) @ directions + 0.1 * rng.normal(size=(2 * IMAGES, WIDTH)) + 1.0
    layer = Linear(rng.normal(size=(OUTPUTS, WIDTH)) / WIDTH**0.5, rng.normal(size=OUTPUTS))
    return layer, features[:IMAGES], features[IMAGES:]


def test_features_that_shift_are_corrected_by_the_bias() -> None:
    layer, features, others = example()
    shift = np.random.default_rng(1).normal(size=WIDTH)
    corrected = corrected_layer(layer, features + shift, logits_of(layer, features))
    np.testing.assert_allclose(corrected.weights, layer.weights, atol=1e-9)
    np.testing.assert_allclose(logits_of(corrected, others + shift), logits_of(layer, others), atol=1e-9)


def test_features_that_are_distorted_are_corrected_on_other_images_too() -> None:
    layer, features, others = example()
    distortion = np.random.default_rng(1).uniform(0.5, 1.0, WIDTH)
    expected = logits_of(layer, others)
    corrected = corrected_layer(layer, features * distortion, logits_of(layer, features))
    error, before = (np.square(logits_of(item, others * distortion) - expected).mean() for item in (corrected, layer))
    assert error < 0.05 * before


def test_noise_is_not_fitted() -> None:
    layer, features, others = example()
    noise = np.random.default_rng(1).normal(size=(2, IMAGES, WIDTH))
    corrected = corrected_layer(layer, features + noise[0], logits_of(layer, features))
    noisy, expected = others + noise[1], logits_of(layer, others)
    error, before = (np.square(logits_of(item, noisy) - expected).mean() for item in (corrected, layer))
    assert error < 1.1 * before


def test_equal_features_of_all_images_correct_the_bias() -> None:
    layer, features, _ = example()
    same = np.repeat(features[:1], IMAGES, axis=0)
    corrected = corrected_layer(layer, same, logits_of(layer, same) + 2.0)
    assert np.array_equal(corrected.weights, layer.weights)
    np.testing.assert_allclose(corrected.bias, layer.bias + 2.0)
