from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from thaw.backbones.facts import Pooling
from thaw.backbones.timm_backbone import build, rebuild
from thaw.errors import BackboneError
from thaw.recipe import PreprocessingSettings

TINY = "test_efficientnet"


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def images(size: int = 64, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_an_unknown_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(BackboneError, match=r"'mobilnetv2_100': no such network; did you mean mobilenetv2_100"):
        build("mobilnetv2_100", "random")


def test_an_unknown_tag_is_an_error() -> None:
    with pytest.raises(BackboneError, match=r"resnet50\.mine.*mine"):
        build("resnet50.mine", "random")


def test_random_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    first = build(TINY, "random", seed=4).state_dict()
    torch.manual_seed(2)
    assert same(first, build(TINY, "random", seed=4).state_dict())
    assert not same(first, build(TINY, "random", seed=5).state_dict())


def test_the_global_random_state_is_unchanged() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build(TINY, "random", seed=9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "inception_v3", "regnety_002", "mobilenetv3_large_100.ra_in1k"])
def test_facts_are_those_of_timm(name: str) -> None:
    facts = build(name, "random").facts
    data = timm.data.resolve_data_config({}, model=timm.create_model(name))
    assert facts.architecture == name.partition(".")[0]
    assert (facts.mean, facts.std) == (data["mean"], data["std"])
    pixels = facts.pixels
    assert (3, pixels.size, pixels.size) == data["input_size"]
    assert (pixels.crop_pct, pixels.crop_mode) == (data["crop_pct"], data["crop_mode"])
    assert pixels.interpolation == data["interpolation"]
    assert facts.preprocessing_origin == f"timm's for {name}"
    assert facts.license == "apache-2.0" or name == "regnety_002"


def test_the_recipe_overrides_single_values_and_the_origin_tells() -> None:
    plain = build(TINY, "random").facts
    wanted = PreprocessingSettings.model_validate({"image_size": 64, "mean": (0.1, 0.2, 0.3)})
    facts = build(TINY, "random", wanted).facts
    assert facts.pixels.size == 64
    assert facts.mean == (0.1, 0.2, 0.3)
    assert facts.pixels.fill == (26, 51, 76)
    assert (facts.std, facts.pixels.crop_pct) == (plain.std, plain.pixels.crop_pct)
    assert facts.preprocessing_origin == f"timm's for {TINY}; image_size, mean from the recipe"


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax"])
def test_features_are_those_of_timm_for_every_pooling(pooling: Pooling) -> None:
    backbone = build(TINY, "random", pooling=pooling)
    reference = timm.create_model(TINY, num_classes=0, global_pool=pooling).eval().to(memory_format=torch.channels_last)
    reference.load_state_dict(backbone.network.state_dict())
    with torch.no_grad():
        features = backbone(images())
        assert torch.equal(features, reference(images()))
    assert features.shape == (2, backbone.facts.width)


def test_a_rebuilt_backbone_gives_the_same_features() -> None:
    backbone = build(TINY, "random", pooling="max", seed=3)
    copy = rebuild(backbone.facts, "max")
    copy.load_state_dict(backbone.state_dict())
    assert copy.facts == backbone.facts
    assert copy.block_names == backbone.block_names
    with torch.no_grad():
        assert torch.equal(copy(images()), backbone(images()))


def test_a_network_that_is_not_a_chain_works_as_a_single_block() -> None:
    backbone = build("test_vit", "random")
    assert not backbone.is_divisible
    size = backbone.facts.pixels.size
    with torch.no_grad():
        assert backbone(images(size)).shape == (2, backbone.facts.width)
    with pytest.raises(BackboneError, match="only head and pixels"):
        backbone.cut("stages:1")


def test_another_size_is_refused_for_a_network_with_a_fixed_size() -> None:
    size = PreprocessingSettings.model_validate({"image_size": 96})
    with pytest.raises(BackboneError, match="supports only images of 160 pixels, not 96"):
        build("test_vit", "random", size)


def test_unsupported_pooling_is_an_error() -> None:
    with pytest.raises(BackboneError, match=r"cannot be built with .*nonsense"):
        build(TINY, "random", pooling="nonsense")  # type: ignore[arg-type]


def test_published_tensorflow_weights_give_timms_own_features(shared_weights: Path) -> None:
    file = shared_weights / "mobilenetv2_100.imagenet.safetensors"
    half = PreprocessingSettings.model_validate({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    backbone = build("MobileNetV2", str(file), half)
    reference = timm.create_model("mobilenetv2_100", pad_type="same").eval().to(memory_format=torch.channels_last)
    reference.load_state_dict(load_file(file))
    with torch.no_grad():
        maps = reference.forward_features(images(224))
        expected = reference.forward_head(maps, pre_logits=True)
        assert torch.equal(backbone(images(224)), expected)
    assert backbone.facts.model_args == {"pad_type": "same"}
    assert backbone.facts.mean == (0.5, 0.5, 0.5)
    assert "sha256 ff24d1e7dea5" in backbone.facts.origin
    assert "contains none; mean, std from the recipe" in backbone.facts.preprocessing_origin
    assert backbone.stage_names[-2:] == ("blocks.6", "conv_head")


def test_published_weights_without_a_classifier_load_too(shared_weights: Path) -> None:
    backbone = build("tf_efficientnet_lite0", str(shared_weights / "tf_efficientnet_lite0.features.safetensors"))
    with torch.no_grad():
        features = backbone(images(224))
    assert features.shape == (2, 1280)
    assert not torch.equal(features[0], features[1])
