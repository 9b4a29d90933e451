from __future__ import annotations

import pytest
import torch
from torch import nn

from thaw.classifier.head import Head

FEATURES = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hidden", [(), (7,), (16, 4)])
@pytest.mark.parametrize("outputs", [1, 6])
def test_features_become_logits(hidden: tuple[int, ...], outputs: int) -> None:
    assert Head(12, outputs, hidden, 0.2, seed=0)(FEATURES).shape == (5, outputs)


def test_only_a_head_without_hidden_layers_is_linear() -> None:
    assert Head(12, 3, (), 0.2, seed=0).is_linear
    assert not Head(12, 3, (4,), 0.2, seed=0).is_linear


def test_layers_are_in_the_documented_order() -> None:
    layers = list(Head(12, 3, (7, 5), 0.3, seed=0).layers)
    kinds = [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)] == [
        (12, 7),
        (7, 5),
        (5, 3),
    ]
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.3}


def test_the_initial_prediction_is_uniform() -> None:
    assert torch.equal(Head(12, 3, (7,), 0.5, seed=3)(FEATURES), torch.zeros(5, 3))


def test_every_layer_learns_within_two_steps() -> None:
    head = Head(12, 3, (7,), 0.0, seed=0)
    before = [parameter.clone() for parameter in head.parameters()]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(FEATURES), torch.tensor([0, 1, 2, 0, 1])).backward()
        optimizer.step()
    assert all(not torch.equal(now, then) for now, then in zip(head.parameters(), before, strict=True))


def test_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    first = Head(12, 3, (7,), 0.2, seed=5).state_dict()
    torch.manual_seed(2)
    again, other = Head(12, 3, (7,), 0.2, seed=5).state_dict(), Head(12, 3, (7,), 0.2, seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["layers.1.weight"], other["layers.1.weight"])


def test_the_global_random_state_is_unchanged() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Head(12, 3, (7,), 0.2, seed=5)
    assert torch.equal(torch.rand(3), expected)
