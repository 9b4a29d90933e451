from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.backbones.test_contract import FACTS, IMAGES, toy
from thaw.backbones import stages
from thaw.backbones.chain import chain_of
from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut, statistics_of
from thaw.errors import BackboneError


def chained() -> Backbone:
    """The toy with the shapes of its blocks: maps end the stages stem, low and shrink, of 4 channels each."""
    backbone = toy()
    shapes = [(4, 10, 10)] * 3 + [(4, 5, 5), (8, 5, 5), (8,)]
    blocks = tuple(replace(block, shape=shape) for block, shape in zip(backbone.blocks, shapes, strict=True))
    return Backbone(backbone.network, blocks, FACTS)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.floats(-50, 50), st.floats(0.01, 20))
def test_the_statistics_are_the_mean_and_the_deviation_of_each_channel(
    images: int, channels: int, side: int, mean: float, scale: float
) -> None:
    values = mean + scale * np.random.default_rng(0).normal(size=(images, channels, side, side + 1))
    found = statistics_of(torch.from_numpy(values.astype(np.float32))).numpy()
    expected = np.concatenate([values.mean(axis=(2, 3)), values.std(axis=(2, 3))], axis=1)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_a_constant_map_has_a_finite_gradient_and_half_precision_is_computed_in_single() -> None:
    constant = torch.full((2, 3, 4, 4), 7.0, requires_grad=True)
    statistics_of(constant).sum().backward()
    assert constant.grad is not None and torch.isfinite(constant.grad).all()
    rounded = (1000 + torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    found = statistics_of(rounded)
    assert found.dtype == torch.float32
    assert torch.equal(found, statistics_of(rounded.float()))


def test_the_head_takes_the_lower_stages_before_the_last_one() -> None:
    backbone = chained()
    assert (backbone.features, backbone.feature_width, backbone.feature_groups) == ("last", 8, (8,))
    backbone.use_features("all")
    assert backbone.feature_groups == (8, 8, 8, 8)
    at = backbone.advance(AtCut.above_nothing(IMAGES), 0, backbone.head_position)
    assert torch.equal(at.for_head()[:, -8:], backbone(IMAGES))
    assert torch.equal(at.stages[:, :8], statistics_of(backbone.run(IMAGES, 0, 1)))
    backbone.use_features("last")
    at = backbone.advance(AtCut.above_nothing(IMAGES), 0, backbone.head_position)
    assert torch.equal(at.for_head(), backbone(IMAGES))


def test_a_position_has_the_stages_that_end_there_or_below() -> None:
    backbone = chained()
    assert {backbone.stage_width(position) for position in range(7)} == {0}
    backbone.use_features("all")
    assert [backbone.stage_width(position) for position in range(7)] == [0, 8, 8, 16, 24, 24, 24]


def test_of_many_stages_only_the_last_of_each_resolution_counts() -> None:
    layers = [nn.Conv2d(3 if index == 0 else 4, 4, 3, stride=1 + (index in (3, 8)), padding=1) for index in range(12)]
    named = {f"conv{index}": layer for index, layer in enumerate(layers)}
    network = nn.Sequential(OrderedDict(**named, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())).eval()
    backbone = Backbone(network, chain_of(network, 16), FACTS)
    backbone.use_features("all")
    assert len(backbone.stage_names) == 12
    assert [backbone.blocks[end - 1].name for _, end in backbone.stage_modules()] == ["conv2", "conv7", "conv10"]


def test_a_network_in_one_piece_has_no_other_stages() -> None:
    backbone = toy()
    assert not backbone.has_stages
    with pytest.raises(BackboneError, match=r"head\.features all: toy has no stages below the last one .* use last"):
        backbone.use_features("all")


def test_the_digest_knows_what_the_head_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = chained()
    last = backbone.digest(4)
    assert last == toy().digest(4)
    backbone.use_features("all")
    both = backbone.digest(4)
    monkeypatch.setattr("thaw.backbones.contract.STATISTICS", stages.STATISTICS[:1])
    assert len({last, both, backbone.digest(4)}) == 3
