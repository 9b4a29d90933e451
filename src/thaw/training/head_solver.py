"""A linear head fitted by L-BFGS on all cached views at once, for a decreasing sequence of L2 penalties.

A linear head on fixed features is a convex problem with one minimum, so there is no learning rate, batch size or seed
to choose. The strength of the L2 penalty is chosen on validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.training.loss import Loss
from thaw.training.sources import Source, batches

PENALTIES = tuple(10.0 ** (-half / 2) for half in range(9))
"""The L2 penalties, from 1 down to 1e-4; each solution is the starting point of the next."""

_READ_BATCH = 1024
_MAX_ITERATIONS = 100

_TOLERANCE = 1e-6
"""Change of the objective below which it is at its minimum. With a tenth of it the objective of four data sets
(MobileNetV2, seven penalties) was lower by 0.0001 at most, in 1.3 to 1.7 times the time."""
_MIN_RELATIVE_DEVIATION = 0.01

_MOST_PAIRS, _FEWEST_PAIRS, _PAIRS_BYTES = 100, 10, 1 << 30


class HeadSolver:
    """Minimises `loss + penalty / 2 * |weights|^2` over a head that is a single linear layer; biases are not penalised.

    The penalty applies to weights of standardised features (mean 0, every stage with the same total variance over all
    views), which gives it the same meaning for every backbone and makes the search short; the solution is converted
    back, so the head still takes plain features. Holds images * views * (width + 3 * outputs) * 4 bytes.

    Args:
        classifier: Its head is modified by `solve`.
        source: Features of the training images at the head.
        loss: The data term.
    """

    def __init__(self, classifier: Classifier, source: Source, loss: Loss) -> None:
        layer = classifier.head.layers[-1]
        assert isinstance(layer, nn.Linear) and classifier.head.is_linear
        self._layer, self._loss = layer, loss
        self._features, self._targets = _read_all(source, classifier.head)
        # A head that standardises is given standardised features.
        if classifier.head.is_standardised:
            self._mean, self._deviation = torch.zeros_like(self._features[0]), torch.ones_like(self._features[0])
        else:
            deviation, self._mean = torch.std_mean(self._features, dim=0, correction=0)
            self._deviation = feature_scales(deviation, classifier.backbone.feature_groups)
        self._features.sub_(self._mean).div_(self._deviation)

    def solve(self, penalty: float) -> float:
        """Set the head to the minimum for a penalty, starting from its current weights.

        The result depends on the head, the features and the penalty only, so a resumed run finds the same minimum.

        Returns:
            The training loss at the minimum, without the penalty.
        """
        with torch.no_grad():
            weight = (self._layer.weight * self._deviation).requires_grad_()
            bias = (self._layer.bias + self._layer.weight @ self._mean).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=_TOLERANCE,
            history_size=history_size(weight.numel()),
            line_search_fn="strong_wolfe",
        )

        def objective() -> float:
            optimizer.zero_grad()
            value = self._loss(self._features @ weight.T + bias, self._targets) + penalty / 2 * weight.square().sum()
            value.backward()
            return float(value.detach())

        optimizer.step(objective)
        with torch.no_grad():
            self._layer.weight.copy_(weight / self._deviation)
            self._layer.bias.copy_(bias - self._layer.weight @ self._mean)
            return float(self._loss(self._features @ weight.T + bias, self._targets))


def history_size(parameters: int) -> int:
    """Of how many steps L-BFGS keeps the change of parameters and gradient: of 100, or of those that 1 GiB can hold.

    Nocedal and Wright 2006, section 7.2: 3 to 20 are usual.
    """
    return max(_FEWEST_PAIRS, min(_MOST_PAIRS, _PAIRS_BYTES // (2 * 4 * parameters)))


def feature_scales(deviation: Tensor, groups: Sequence[int]) -> Tensor:
    """What features (W,) are divided by, given their deviations: each stage then has the same total variance.

    Otherwise the last stage, which has most features, would outweigh all others. With every feature at deviation 1
    instead, a head on all stages was 3 points less accurate on waste, and as good on solar cells and steel
    (MobileNetV2, five folds of 1,000 images).

    Args:
        deviation: Of each feature.
        groups: How many of the features belong to each stage.
    """
    width = sum(groups) / len(groups)
    # A nearly constant feature would be scaled up without bound. Stages differ in scale, so each has its own limit.
    return torch.cat(
        [
            group.clamp_min(float(_MIN_RELATIVE_DEVIATION * group.mean()) or 1.0) * (len(group) / width) ** 0.5
            for group in deviation.split(list(groups))
        ]
    )


def _read_all(source: Source, head: Head) -> tuple[Tensor, Tensor]:
    """What the layers of a head take of every view of every image, (images * views, width) float32, and the targets.

    In one block of memory.
    """
    features: Tensor | None = None
    targets, start = [], 0
    for view in range(source.views):
        for inputs, labels in batches(source, _READ_BATCH, view, shuffle_seed=None):
            at_head = head.standardised(inputs.for_head())
            if features is None:
                features = at_head.new_empty(len(source) * source.views, at_head.shape[1], dtype=torch.float32)
            features[start : start + len(labels)] = at_head
            targets.append(labels)
            start += len(labels)
    assert features is not None
    return features, torch.cat(targets)
