from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from thaw.backbones.contract import Backbone
from thaw.backbones.cuts import Block
from thaw.backbones.facts import Facts
from thaw.backbones.timm_backbone import build
from thaw.data.geometry import PixelSpec
from thaw.errors import BackboneError

FACTS = Facts(
    architecture="toy",
    pixels=PixelSpec(32, 1.0, "center", "bilinear"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    width=8,
    classifier_name="fc",
    license="none",
    origin="random",
    preprocessing_origin="invented",
)


class NormAct(nn.BatchNorm2d):
    """BatchNorm with its activation inside, as timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, value: Tensor) -> Tensor:
        return self.act(super().forward(value))


def unit(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(inputs, outputs, 3, padding=1), bn=NormAct(outputs), drop=nn.Dropout(0.5))
    )


def toy() -> Backbone:
    """stem, (low.0, low.1), a stage without parameters, (top.0, top.1 and pooling): 20 layers."""
    torch.manual_seed(0)
    network = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3),
            low=nn.Sequential(unit(4, 4), unit(4, 4)),
            shrink=nn.MaxPool2d(2),
            top=nn.Sequential(unit(4, 8), unit(8, 8)),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
        )
    )
    blocks = (
        Block("stem", ("stem",)),
        Block("low", ("low.0",)),
        Block("low", ("low.1",)),
        Block("shrink", ("shrink",)),
        Block("top", ("top.0",)),
        Block("top", ("top.1", "pool", "flat")),
    )
    return Backbone(network, blocks, FACTS)


IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def trainable(backbone: Backbone) -> set[str]:
    return {name for name, parameter in backbone.network.named_parameters() if parameter.requires_grad}


def test_a_new_backbone_is_frozen_and_in_eval_mode() -> None:
    backbone = toy()
    assert not trainable(backbone)
    assert not any(module.training for module in backbone.network.modules())


def test_names_go_from_the_pixels_to_the_head() -> None:
    backbone = toy()
    assert backbone.block_names == ("stem", "low.0", "low.1", "shrink", "top.0", "top.1")
    assert backbone.stage_names == ("stem", "low", "shrink", "top")


@pytest.mark.parametrize(
    ("at", "name", "position"),
    [
        ("head", "head", 6),
        ("pixels", "pixels", 0),
        ("top", "top", 4),
        ("low", "low", 1),
        ("top.1", "top.1", 5),
        ("stages:1", "top", 4),
        ("stages:2", "low", 1),
        ("stages:3", "stem", 0),
    ],
)
def test_a_cut_lies_below_the_lowest_stage_that_trains(at: str, name: str, position: int) -> None:
    backbone = toy()
    cut = backbone.cut(at)
    above = {module for block in backbone.blocks[position:] for module in block.modules}
    assert (cut.name, cut.position) == (name, position)
    assert cut.trainable == {
        parameter
        for parameter, _ in backbone.network.named_parameters()
        if any(parameter.startswith(f"{module}.") for module in above)
    }


def test_the_last_layers_count_batchnorm_and_its_activation() -> None:
    backbone = toy()
    # From the top: flat, pool, drop, act, bn, conv of top.1; then the same of top.0.
    assert backbone.cut("layers:4").trainable == frozenset()
    assert backbone.cut("layers:5").trainable == {"top.1.bn.weight", "top.1.bn.bias"}
    six = {"top.1.bn.weight", "top.1.bn.bias", "top.1.conv.weight", "top.1.conv.bias"}
    assert backbone.cut("layers:6").trainable == six
    assert backbone.cut("layers:6").position == 5
    assert backbone.cut("layers:9").position == 4
    assert backbone.cut("layers:9").trainable == six | {"top.0.bn.weight", "top.0.bn.bias"}


@given(st.integers(1, 19))
def test_more_layers_thaw_more_and_lie_no_higher(count: int) -> None:
    backbone = toy()
    fewer, more = backbone.cut(f"layers:{count}"), backbone.cut(f"layers:{count + 1}")
    assert fewer.trainable <= more.trainable
    assert fewer.position >= more.position
    assert more.trainable <= backbone._cuts._cut_at("", more.position).trainable


def test_all_layers_are_all_parameters() -> None:
    backbone = toy()
    assert backbone.cut("layers:20").trainable == backbone.cut("pixels").trainable
    with pytest.raises(BackboneError, match="layers:21: toy has 20 layers"):
        backbone.cut("layers:21")


@pytest.mark.parametrize("at", ["stages:0", "layers:-1", "stages:two", "layers:", "", "layer4"])
def test_an_unknown_cut_lists_what_there_is(at: str) -> None:
    with pytest.raises(BackboneError, match=r"known are head, pixels, stem, low, shrink, top"):
        toy().cut(at)


def test_an_unknown_cut_suggests_a_near_one() -> None:
    with pytest.raises(BackboneError, match=r"did you mean 'top\.1'"):
        toy().cut("top_1")


def test_too_many_stages_are_refused() -> None:
    with pytest.raises(BackboneError, match="stages:4: toy has 3 stages"):
        toy().cut("stages:4")


def test_thawing_is_exact_and_can_be_taken_back() -> None:
    backbone = toy()
    for at in ("stages:2", "layers:5", "head", "pixels", "top.1"):
        cut = backbone.cut(at)
        backbone.thaw(cut, "frozen")
        assert trainable(backbone) == cut.trainable


def test_training_mode_reaches_only_what_lies_above_the_cut() -> None:
    backbone = toy()
    backbone.thaw(backbone.cut("top"), "frozen")
    for _ in range(2):
        backbone.train()
        modes = {name: module.training for name, module in backbone.network.named_modules()}
        assert not modes["low.0.drop"]
        assert not modes["stem"]
        assert modes["top.0.drop"]
        assert not modes["top.0.bn"]
    backbone.eval()
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_batchnorm_renews_its_statistics_only_above_the_cut_and_only_when_asked(batchnorm: str) -> None:
    backbone = toy()
    backbone.thaw(backbone.cut("top"), batchnorm)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in backbone.network.named_buffers()}
    backbone.train()
    backbone(IMAGES)
    changed = {name for name, value in backbone.network.named_buffers() if not torch.equal(value, before[name])}
    assert changed == ({name for name in before if name.startswith("top.")} if batchnorm == "train" else set())


def test_batchnorm_below_the_first_of_the_last_layers_stays_frozen_within_its_block() -> None:
    backbone = toy()
    backbone.thaw(backbone.cut("layers:8"), "train")  # top.1, and drop and act of top.0
    before = backbone.network.get_submodule("top.0.bn").running_mean.clone()
    backbone.train()
    backbone(IMAGES)
    assert torch.equal(backbone.network.get_submodule("top.0.bn").running_mean, before)
    assert backbone.network.get_submodule("top.1.bn").training


def test_running_in_two_parts_is_running_once() -> None:
    backbone = toy()
    whole = backbone(IMAGES)
    for position in range(7):
        assert torch.equal(backbone.run(backbone.run(IMAGES, 0, position), position, 6), whole)


def test_depth_counts_stages_from_the_head() -> None:
    backbone = toy()
    backbone.thaw(backbone.cut("pixels"), "frozen")
    depth = {name: depth for name, _, depth in backbone.trainable_parameters()}
    assert depth["network.top.1.conv.weight"] == depth["network.top.0.bn.bias"] == 0
    assert depth["network.low.1.conv.weight"] == 2
    assert depth["network.stem.bias"] == 3


def test_only_what_is_thawed_is_trainable() -> None:
    backbone = toy()
    assert not list(backbone.trainable_parameters())
    cut = backbone.cut("stages:1")
    backbone.thaw(cut, "frozen")
    assert {name.removeprefix("network.") for name, _, _ in backbone.trainable_parameters()} == cut.trainable


def test_named_weights_go_back_to_where_they_came_from() -> None:
    backbone, other = toy(), toy()
    with torch.no_grad():
        other.network.get_parameter("stem.bias").add_(1)
    other.load_named_weights(backbone.named_weights())
    assert torch.equal(other(IMAGES), backbone(IMAGES))


def test_state_from_a_cut_is_what_lies_above_it() -> None:
    backbone = toy()
    state = backbone.state_dict()
    assert backbone.state_from(0).keys() == state.keys()
    assert backbone.state_from(6) == {}
    assert backbone.state_from(4).keys() == {key for key in state if key.startswith("network.top.")}


def test_the_digest_knows_every_weight_below_the_cut_and_none_above() -> None:
    backbone = toy()
    before = backbone.digest(4)
    with torch.no_grad():
        backbone.network.get_parameter("top.0.conv.weight")[0] += 1
    assert backbone.digest(4) == before == toy().digest(4)
    assert backbone.digest(5) != toy().digest(5)
    backbone.network.get_buffer("low.1.bn.running_var")[0] += 1
    assert backbone.digest(4) != before


def test_a_network_in_one_piece_is_cut_at_the_ends_only() -> None:
    backbone = Backbone(toy().network, (Block("network", ("",)),), FACTS)
    assert not backbone.is_divisible
    assert backbone.block_names == ("network",)
    assert backbone.cut("pixels").trainable == {name for name, _ in backbone.network.named_parameters()}
    assert backbone.cut("head").position == 1
    backbone.thaw(backbone.cut("pixels"), "frozen")
    assert {depth for _, _, depth in backbone.trainable_parameters()} == {0}
    with pytest.raises(BackboneError, match="only head and pixels"):
        backbone.cut("layers:3")


@pytest.mark.parametrize(("cut", "stages", "raised"), [("stages:3", 0, "stages:3"), ("stages:3", 1, "stages:2")])
def test_a_raised_cut_lies_some_stages_above(cut: str, stages: int, raised: str) -> None:
    backbone = build("mobilenetv3_small_050", "random")
    assert backbone.raised(backbone.cut(cut), stages) == backbone.cut(raised)


def test_the_top_stage_always_trains() -> None:
    backbone = build("mobilenetv3_small_050", "random")
    assert backbone.raised(backbone.cut("stages:3"), 5) == backbone.cut("stages:1")
    assert backbone.raised(backbone.cut("head"), 1) == backbone.cut("head")


def test_what_a_cut_within_a_block_leaves_frozen_stays_frozen_above() -> None:
    backbone = build("mobilenetv3_small_050", "random")
    low = backbone.cut("layers:20")
    assert backbone.raised(low, 1).trainable < low.trainable
