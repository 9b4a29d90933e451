from __future__ import annotations

import pytest
import torch
from torch import nn

from pretraining.optimizer import Muon, optimizers_for, orthogonal


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, *shape)))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_every_parameter_has_one_optimizer_and_only_dense_ones_are_made_orthogonal() -> None:
    module = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 64, 1)
    )
    adam, muon = optimizers_for(module, 1e-3, 0.01, muon=True)
    given = [value for mover in (adam, muon) for group in mover.param_groups for value in group["params"]]
    assert {id(value) for value in given} == {id(value) for value in module.parameters()}
    assert len(given) == len(list(module.parameters()))
    assert [tuple(value.shape) for value in muon.param_groups[0]["params"]] == [(32, 16, 3, 3), (64, 32, 1, 1)]


def test_it_learns_a_linear_map() -> None:
    torch.manual_seed(0)
    truth, weight = torch.randn(16, 24), nn.Parameter(torch.zeros(16, 24))
    mover, images = Muon([weight], lr=0.05, weight_decay=0.0), torch.randn(64, 24)
    for _ in range(200):
        mover.zero_grad()
        ((images @ (weight - truth).T) ** 2).mean().backward()
        mover.step()
    assert (weight - truth).norm() < 0.2 * truth.norm()
