"""The linear head solved, not stepped: every stored view at once, by L-BFGS, along a path of penalties.

A linear head on fixed features is a convex problem with one minimum, so there is nothing to schedule: no learning
rate, no batch size, no seed. What remains to choose is how strongly weights are held back, and validation chooses it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thaw.classifier.classifier import Classifier
from thaw.training.loss import Loss
from thaw.training.sources import Source, batches

PENALTIES = tuple(10.0 ** (-half / 2) for half in range(9))
"""The L2 penalties that are tried in this order, from 1 down to 1e-4: each solution starts the search for the next."""

_READ_AT_ONCE = 1024
_MOST_ITERATIONS = 100
_LEAST_SHARE = 0.01


class HeadSolver:
    """Minimises `loss + penalty / 2 * |weights|^2` of a head that is one linear layer, biases free.

    The penalty holds for standardised features (mean 0, deviation 1 over all views of all images), which makes it mean
    the same for every backbone and the search short; the head itself stays one that reads plain features. Holds
    images x views x width x 4 bytes.
    """

    def __init__(self, classifier: Classifier, source: Source, loss: Loss) -> None:
        layer = classifier.head.layers[-1]
        assert isinstance(layer, nn.Linear) and classifier.head.is_linear
        self._layer, self._loss = layer, loss
        self._features, self._targets = _read_all(source, layer.in_features)
        deviation, self._mean = torch.std_mean(self._features, dim=0, correction=0)
        # A feature that hardly varies would be blown up by its own tiny deviation.
        self._deviation = deviation.clamp_min(float(_LEAST_SHARE * deviation.mean()) or 1.0)
        self._features.sub_(self._mean).div_(self._deviation)

    def solve(self, penalty: float) -> float:
        """Put the head at the minimum, searching from where it is now, and give the loss there without the penalty.

        Depends on nothing but the head, the features and the penalty, so that a resumed run finds the same minimum.
        """
        with torch.no_grad():
            weight = (self._layer.weight * self._deviation).requires_grad_()
            bias = (self._layer.bias + self._layer.weight @ self._mean).requires_grad_()
        search = torch.optim.LBFGS(
            [weight, bias],
            max_iter=_MOST_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def objective() -> float:
            search.zero_grad()
            value = self._loss(self._features @ weight.T + bias, self._targets) + penalty / 2 * weight.square().sum()
            value.backward()
            return float(value.detach())

        search.step(objective)
        with torch.no_grad():
            self._layer.weight.copy_(weight / self._deviation)
            self._layer.bias.copy_(bias - self._layer.weight @ self._mean)
            return float(self._loss(self._features @ weight.T + bias, self._targets))


def _read_all(source: Source, width: int) -> tuple[Tensor, Tensor]:
    """Features (images * views, width) float32 and targets of every view of every image, as one block of memory."""
    features: Tensor | None = None
    targets, start = [], 0
    for view in range(source.views):
        for inputs, wanted in batches(source, _READ_AT_ONCE, view, shuffle_seed=None):
            if features is None:
                features = inputs.new_empty(len(source) * source.views, width, dtype=torch.float32)
            features[start : start + len(inputs)] = inputs
            targets.append(wanted)
            start += len(inputs)
    assert features is not None
    return features, torch.cat(targets)
