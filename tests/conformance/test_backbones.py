"""Every family of networks keeps the contract of `Backbone`, with statistics unlike a new network's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.networks import randomise
from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.recipe import PreprocessingSettings, Recipe

SMALL = 64
# Inception-v3 and its relatives shrink an image to nothing below 75 pixels.
SIZES = {
    **dict.fromkeys(("inception_v3", "legacy_xception", "xception41", "keras:Xception"), 80),
    **dict.fromkeys(("keras:InceptionV3", "keras:InceptionResNetV2"), 80),
}
FAMILIES = [
    "resnet50",
    "inception_v3",
    "legacy_xception",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "convnext_tiny",
    "densenet121",
    "regnety_002",
    "keras:EfficientNetB0",
    "keras:MobileNetV2",
    "keras:MobileNetV3Small",
]
DEEPER = [*(f"efficientnet_b{size}" for size in range(1, 5)), "xception41", "keras:ResNet50", "keras:Xception"]
"""Tested for every change, but in CI only."""
LARGE_OF_KERAS = [
    "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2", "InceptionV3", "InceptionResNetV2",
    *(f"EfficientNetB{size}" for size in range(1, 8)),
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    "MobileNet", "MobileNetV3Large", "DenseNet121", "DenseNet169", "DenseNet201", "VGG16", "VGG19",
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base")),
]  # fmt: skip
LARGE = [
    "resnet101",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    *(f"keras:{name}" for name in LARGE_OF_KERAS),
]
CUTS = ["stages:1", "stages:2", "layers:1", "layers:7", "layers:20", "pixels"]


@dataclass(frozen=True)
class Case:
    """A backbone and what lies at each of its positions for one batch of images."""

    backbone: Backbone
    images: Tensor
    at: tuple[Tensor, ...]


NETWORKS = [
    *FAMILIES,
    *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.ci]) for name in DEEPER),
    *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    size = SIZES.get(request.param, SMALL)
    # Keras builds a network for one size.
    preprocessing = PreprocessingSettings(image_size=size)
    backbone = build(Recipe(backbone=request.param, weights="random", preprocessing=preprocessing))
    generator = torch.Generator().manual_seed(0)
    randomise(backbone, generator)
    images = torch.randn(2, 3, size, size, generator=generator)
    at = [images]
    with torch.no_grad():
        for position in range(len(backbone.blocks)):
            at.append(backbone.run(at[-1], position, position + 1))
    yield Case(backbone, images, tuple(at))


@pytest.fixture(autouse=True)
def _leave_it_frozen(case: Case) -> Iterator[None]:
    yield
    case.backbone.zero_grad(set_to_none=True)
    case.backbone.thaw(case.backbone.cut("head"), "frozen")
    case.backbone.use_features("last")
    case.backbone.eval()


def _batchnorms(module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, child in module.named_modules()
        if isinstance(child, _BatchNorm)
        for key, value in child.state_dict().items()
        if key in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_the_chain_gives_what_the_network_gives(case: Case) -> None:
    features = case.at[-1]
    with torch.no_grad():
        assert torch.equal(case.backbone.network(case.images), features)
    assert features.shape == (2, case.backbone.facts.width)
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])


def test_every_position_divides_the_network_exactly(case: Case) -> None:
    stop = len(case.backbone.blocks)
    with torch.no_grad():
        for position in range(stop + 1):
            assert torch.equal(case.backbone.run(case.at[position], position, stop), case.at[-1]), position


def test_the_statistics_of_stages_are_those_of_their_maps(case: Case) -> None:
    backbone, whole = case.backbone, AtCut.above_nothing(case.images)
    assert backbone.feature_width == case.at[-1].shape[1]
    backbone.use_features("all")
    with torch.no_grad():
        at = backbone.advance(whole, 0, backbone.head_position)
    maps = [case.at[end].double().flatten(2) for _, end in backbone.stage_modules()]
    assert 3 <= len(maps) <= 10
    expected = [part for values in maps for part in (values.mean(2), (values.var(2, correction=0) + 1e-6).sqrt())]
    torch.testing.assert_close(at.stages.double(), torch.cat(expected, dim=1), rtol=1e-3, atol=1e-4)
    assert torch.equal(at.values, case.at[-1])
    assert at.for_head().shape == (2, backbone.feature_width) == (2, sum(backbone.feature_groups))


def test_cuts_around_the_end_of_every_stage_divide_all_stages_exactly(case: Case) -> None:
    backbone, stop = case.backbone, case.backbone.head_position
    backbone.use_features("all")
    with torch.no_grad():
        whole = backbone.advance(AtCut.above_nothing(case.images), 0, stop)
        for position in sorted({at for _, end in backbone.stage_modules() for at in (end - 1, end)}):
            below = AtCut(case.at[position], whole.stages[:, : backbone.stage_width(position)])
            assert torch.equal(backbone.advance(below, position, stop).for_head(), whole.for_head()), position


def test_every_family_can_be_divided(case: Case) -> None:
    assert len(case.backbone.blocks) >= 5
    assert len(case.backbone.stage_names) >= 5


def test_names_are_unique_and_stages_hang_together(case: Case) -> None:
    blocks = case.backbone.blocks
    modules = [module for block in blocks for module in block.modules]
    assert len(set(case.backbone.block_names)) == len(blocks)
    assert len(set(modules)) == len(modules)
    assert [stage for stage, _ in groupby(blocks, key=lambda block: block.stage)] == list(case.backbone.stage_names)


def test_tensors_keep_the_names_that_timm_gives_them(case: Case) -> None:
    if case.backbone.facts.library != "timm":
        pytest.skip("not a network of timm")
    with torch.device("meta"):
        whole = timm.create_model(case.backbone.facts.architecture)
    classifier = f"{case.backbone.facts.classifier_name}."
    given = {name for name in whole.state_dict() if name.startswith(classifier)}
    assert given
    assert case.backbone.named_weights().keys() == whole.state_dict().keys() - given


def test_every_parameter_lies_in_one_stage_and_deeper_ones_lie_lower(case: Case) -> None:
    backbone = case.backbone
    assert backbone.cut("pixels").trainable == {name for name, _ in backbone.network.named_parameters()}
    backbone.thaw(backbone.cut("pixels"), "frozen")
    depth = {name.removeprefix("network."): depth for name, _, depth in backbone.trainable_parameters()}
    assert set(depth.values()) == set(range(len(backbone.stage_names)))
    for count in range(1, len(backbone.stage_names) + 1):
        assert backbone.cut(f"stages:{count}").trainable == {name for name in depth if depth[name] < count}


@pytest.mark.parametrize("at", CUTS)
def test_gradients_reach_exactly_what_is_thawed(case: Case, at: str) -> None:
    if at == "layers:20" and "VGG16" in case.backbone.facts.architecture:
        pytest.skip("it has 19 layers")
    backbone, cut = case.backbone, case.backbone.cut(at)
    backbone.thaw(cut, "frozen")
    backbone.train()
    features = backbone.run(case.at[cut.position], cut.position, len(backbone.blocks))
    if cut.trainable:
        features.square().sum().backward()
    reached = {name for name, value in backbone.network.named_parameters() if value.grad is not None}
    assert reached == cut.trainable
    assert features.requires_grad == bool(cut.trainable)


@pytest.mark.parametrize("at", ["stages:3", "pixels"])
def test_gradients_of_all_stages_reach_what_is_thawed_and_no_statistic_below(case: Case, at: str) -> None:
    backbone, cut = case.backbone, case.backbone.cut(at)
    backbone.use_features("all")
    backbone.thaw(cut, "frozen")
    backbone.train()
    with torch.no_grad():
        below = backbone.advance(AtCut.above_nothing(case.images), 0, cut.position)
    above = backbone.advance(below, cut.position, backbone.head_position)
    above.for_head().square().sum().backward()
    reached = {name for name, value in backbone.network.named_parameters() if value.grad is not None}
    assert reached == cut.trainable
    assert all(torch.isfinite(backbone.network.get_parameter(name).grad).all() for name in reached)
    assert torch.equal(above.stages[:, : below.stages.shape[1]], below.stages)


def test_more_layers_never_thaw_less(case: Case) -> None:
    counts = (1, 2, 5, 10) if "VGG" in case.backbone.facts.architecture else (1, 2, 5, 10, 20, 30)
    cuts = [case.backbone.cut(f"layers:{count}") for count in counts]
    for fewer, more in pairwise(cuts):
        assert fewer.trainable <= more.trainable
        assert fewer.position >= more.position
    assert cuts[-1].trainable


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_training_leaves_what_is_frozen_bit_for_bit(case: Case, batchnorm: str) -> None:
    backbone, cut = case.backbone, case.backbone.cut("stages:1")
    backbone.thaw(cut, batchnorm)  # type: ignore[arg-type]
    above = backbone.state_from(cut.position)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()
    with torch.no_grad():
        assert torch.equal(backbone.run(case.images, 0, cut.position), case.at[cut.position])
        backbone.run(case.at[cut.position], cut.position, len(backbone.blocks))
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    renewed = {f"network.{name}" for name in _batchnorms(backbone.network)} & above.keys()
    assert changed == (renewed if batchnorm == "train" else set())
    backbone.load_state_dict(before)
