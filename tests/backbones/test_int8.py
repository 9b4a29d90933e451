"""A network in int8 keeps its names, its shapes and its gradients, and can be written to a file and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.networks import randomise
from thaw.backbones import build, rebuild
from thaw.backbones.contract import Backbone
from thaw.backbones.int8 import Int8Convolution, can_be_quantised, quantise
from thaw.backbones.rounding import levels_of
from thaw.backbones.weights import write_file
from thaw.errors import BackboneError
from thaw.recipe import Recipe

SIZE = 64


def network(name: str = "mobilenetv3_small_050", **settings: object) -> Backbone:
    recipe = Recipe(backbone=name).with_settings({"weights": "random", "preprocessing.image_size": SIZE, **settings})
    backbone = build(recipe)
    randomise(backbone, torch.Generator().manual_seed(0))
    return backbone


def pixels(count: int = 8, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 255
    return nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").movedim(1, 3).to(torch.uint8)


def features(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return backbone(images.movedim(3, 1).float() / 255)


# Conv2dSame of the second pads its inputs by their size; the third has no depthwise layers; the last says "same".
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_efficientnet_lite0", "resnet18", "convmixer_768_32"])
def test_features_change_little_and_weights_keep_their_names_and_are_integers(name: str) -> None:
    backbone = network(name)
    before, names = features(backbone, pixels()), set(backbone.named_weights())
    quantise(backbone, pixels().split(3))
    assert backbone.facts.int8
    after = features(backbone, pixels())
    assert float((after - before).norm() / before.norm()) < 0.1
    assert not torch.equal(after, before)
    assert names <= set(backbone.named_weights())
    convolutions = [module for module in backbone.network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        assert isinstance(convolution, Int8Convolution)
        steps = convolution.weight / convolution.weight_scale[:, None, None, None]
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert float(steps.abs().max()) == pytest.approx(levels_of(convolution.weight.shape), abs=1e-3)


def test_gradients_pass_the_rounding_down_to_the_pixels() -> None:
    backbone = network()
    quantise(backbone, [pixels()])
    images = pixels().movedim(3, 1).float().div(255).requires_grad_()
    backbone(images).square().sum().backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0


def test_a_file_of_weights_in_int8_gives_the_same_features(tmp_path: Path) -> None:
    backbone = network()
    quantise(backbone, [pixels()])
    write_file(backbone, tmp_path / "int8.safetensors")
    write_file(network(), tmp_path / "float.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("int8", "float")]
    assert sizes[0] < 0.5 * sizes[1]
    read = build(
        Recipe(backbone="mobilenetv3_small_050").with_settings({"weights": str(tmp_path / "int8.safetensors")})
    )
    assert read.facts.int8 and read.facts.pixels.size == SIZE
    assert torch.equal(features(read, pixels()), features(backbone, pixels()))
    assert read.digest(read.head_position) == backbone.digest(backbone.head_position)
    again = rebuild(read.facts, read.pooling)
    again.load_named_weights(read.named_weights())
    assert torch.equal(features(again, pixels()), features(backbone, pixels()))


def test_a_channel_without_weights_and_inputs_that_are_zero_stay_what_they_are() -> None:
    backbone = network("resnet18")
    first = backbone.network.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight[0] = 0.0
    black = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    quantise(backbone, [black])
    assert torch.isfinite(features(backbone, black)).all()
    assert not first.weight[0].any()


def test_a_network_in_int8_of_keras_or_with_weights_computed_anew_cannot_be_quantised() -> None:
    backbone = network()
    quantise(backbone, [pixels()])
    with pytest.raises(BackboneError, match="in int8 already"):
        quantise(backbone, [pixels()])
    backbone = network("resnet18")
    backbone.network.register_module("unused", nn.Conv2d(3, 3, 1))
    with pytest.raises(BackboneError, match="cannot run in int8: unused does not run"):
        quantise(backbone, [pixels()])
    assert not backbone.facts.int8 and not isinstance(backbone.network.get_submodule("conv1"), Int8Convolution)
    keras = build(Recipe(backbone="keras:MobileNetV2").with_settings({"weights": "random"}))
    assert not can_be_quantised(keras)
    with pytest.raises(BackboneError, match="that is for networks of PyTorch, not of keras"):
        quantise(keras, [])
    with pytest.raises(BackboneError, match="with other weights than those that it stores"):
        quantise(network("nf_resnet26"), [pixels()])
