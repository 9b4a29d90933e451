"""Weights are rounded together so that the sums they are part of change less than with rounding to nearest."""

import numpy as np
import torch

from thaw.backbones.rounding import LEVELS, SEVEN_BIT_LEVELS, Convolution, PatchStatistics, round_together


def test_two_products_fit_into_sixteen_bits() -> None:
    assert 2 * SEVEN_BIT_LEVELS * 255 < 2**15 < 2 * LEVELS * 255


def test_rounding_together_never_increases_the_variance_and_keeps_the_extremes() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-LEVELS, LEVELS, (50, 9))
    values[:, 3] = LEVELS
    patches = rng.normal(size=(50, 9, 40)) + 2.0 * rng.normal(size=(50, 1, 40))
    covariance = patches @ patches.transpose(0, 2, 1) / 40

    def variance(rounded: np.ndarray) -> np.ndarray:
        return np.einsum("oi,oij,oj->o", rounded - values, covariance, rounded - values)

    rounded = round_together(values, covariance)
    assert np.array_equal(rounded, np.rint(rounded)) and np.abs(rounded - values).max() < 1.0
    assert (rounded[:, 3] == LEVELS).all() and np.abs(rounded).max() <= LEVELS
    assert (variance(rounded) <= variance(np.rint(values)) + 1e-9).all()
    assert variance(rounded).mean() < 0.3 * variance(np.rint(values)).mean()


def test_inputs_that_never_vary_let_weights_be_rounded_to_the_nearest() -> None:
    assert np.array_equal(round_together(np.full((2, 4), 1.4), np.zeros((2, 4, 4))), np.ones((2, 4)))


def test_patches_are_those_that_the_convolution_multiplies() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 4, 11, 9, dtype=torch.float64)
    convolution = torch.nn.Conv2d(4, 8, (3, 2), (2, 1), (1, 2), (1, 3), groups=4, bias=False).double()
    statistics = PatchStatistics(Convolution((8, 1, 3, 2), (2, 2, 1, 1), (2, 1), (1, 3), 4))
    statistics.add(inputs[:1])
    statistics.add(inputs[1:])
    found, outputs = statistics.statistics(), convolution(inputs).detach().movedim(1, 0).flatten(1).numpy()
    weights = convolution.weight.detach().numpy().reshape(4, 2, 6)
    np.testing.assert_allclose((weights @ found.mean[:, :, None]).ravel(), outputs.mean(axis=1), atol=1e-9)
    assert found.covariance is not None
    variance = np.einsum("gok,gkl,gol->go", weights, found.covariance, weights)
    np.testing.assert_allclose(variance.ravel(), outputs.var(axis=1), atol=1e-9)
