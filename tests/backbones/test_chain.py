from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from thaw.backbones.chain import chain_of
from thaw.backbones.cuts import Block


class Residual(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        return value + self.conv(value)


class Network(nn.Module):
    """Runs its children one after the other, in an order that can be given."""

    def __init__(self, order: list[str] | None = None, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.order = order or list(children)
        self.eval()

    def forward(self, value: Tensor) -> Tensor:
        for name in self.order:
            value = self.get_submodule(name)(value)
        return value.mean((2, 3)) if value.dim() == 4 and "pool" not in self.order else value


def head() -> dict[str, nn.Module]:
    return {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}


ONE_PIECE = (Block("network", ("",)),)


def chain(network: nn.Module) -> tuple[Block, ...]:
    torch.manual_seed(0)
    return chain_of(network, 8)


def test_layers_without_weights_join_the_block_before_them() -> None:
    network = Network(stem=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4).eval(), act=nn.ReLU(), **head())
    assert chain(network) == (Block("stem", ("stem", "bn", "act", "pool", "flat")),)


def test_sequentials_of_one_kind_are_stages() -> None:
    network = Network(
        stem=nn.Conv2d(3, 4, 1),
        layer1=nn.Sequential(Residual(), Residual()),
        layer2=nn.Sequential(Residual()),
        **head(),
    )
    assert chain(network) == (
        Block("stem", ("stem",)),
        Block("layer1", ("layer1.0",)),
        Block("layer1", ("layer1.1",)),
        Block("layer2", ("layer2.0", "pool", "flat")),
    )


def test_a_sequential_that_is_the_only_one_of_its_kind_is_a_list_of_stages() -> None:
    network = Network(stem=nn.Sequential(nn.Conv2d(3, 4, 1)), stages=nn.Sequential(Residual(), Residual()), **head())
    assert [block.stage for block in chain(network)] == ["stem.0", "stages.0", "stages.1"]


def test_a_sequential_within_a_sequential_is_a_stage() -> None:
    network = Network(
        stem=nn.Conv2d(3, 4, 1),
        blocks=nn.Sequential(nn.Sequential(Residual(), Residual()), nn.Sequential(Residual())),
        **head(),
    )
    assert [(block.stage, block.name) for block in chain(network)] == [
        ("stem", "stem"),
        ("blocks.0", "blocks.0.0"),
        ("blocks.0", "blocks.0.1"),
        ("blocks.1", "blocks.1.0"),
    ]


def test_a_norm_that_opens_a_stage_stays_in_it() -> None:
    transition = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(4).eval(), conv=nn.Conv2d(4, 4, 1)))
    network = Network(features=nn.Sequential(OrderedDict(conv0=nn.Conv2d(3, 4, 1), transition=transition)), **head())
    assert [(block.stage, block.name) for block in chain(network)] == [
        ("features.conv0", "features.conv0"),
        ("features.transition", "features.transition.norm"),
        ("features.transition", "features.transition.conv"),
    ]


def test_children_are_in_execution_order_and_unused_ones_omitted() -> None:
    network = Network(
        order=["first", "second", "pool", "flat"],
        second=nn.Conv2d(4, 4, 1),
        first=nn.Conv2d(3, 4, 1),
        auxiliary=nn.Conv2d(4, 4, 1),
        **head(),
    )
    assert [block.name for block in chain(network)] == ["first", "second"]


def test_a_child_that_runs_twice_gives_a_single_block() -> None:
    network = Network(
        order=["stem", "again", "again", "pool", "flat"], stem=nn.Conv2d(3, 4, 1), again=Residual(), **head()
    )
    assert chain(network) == ONE_PIECE


def test_an_operation_outside_the_children_gives_a_single_block() -> None:
    network = Network(stem=nn.Conv2d(3, 4, 1), body=Residual())
    assert chain(network) == ONE_PIECE


def test_a_skip_connection_between_children_gives_a_single_block() -> None:
    class Skipping(Network):
        def forward(self, value: Tensor) -> Tensor:
            stem = self.get_submodule("stem")(value)
            return self.get_submodule("flat")(self.get_submodule("pool")(stem + self.get_submodule("body")(stem)))

    assert chain(Skipping(stem=nn.Conv2d(3, 4, 1), body=nn.Conv2d(4, 4, 1), **head())) == ONE_PIECE


def test_a_child_with_two_inputs_gives_a_single_block() -> None:
    class Pair(nn.Module):
        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return one + two

    class Pairing(Network):
        def forward(self, value: Tensor) -> Tensor:
            stem = self.get_submodule("stem")(value)
            return self.get_submodule("pair")(stem, stem).mean((2, 3))

    assert chain(Pairing(stem=nn.Conv2d(3, 4, 1), pair=Pair())) == ONE_PIECE


def test_all_hooks_are_removed() -> None:
    network = Network(stem=nn.Conv2d(3, 4, 1), **head())
    chain(network)
    assert not any(child._forward_hooks for child in network.children())
