from __future__ import annotations

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from thaw.backbones.catalogue import ALIASES, Entry, entries, find, look_up, resolve_name, suggest
from thaw.errors import BackboneError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ResNet50", "resnet50"),
        ("InceptionV3", "inception_v3"),
        ("Xception", "legacy_xception"),
        ("EfficientNetB0", "efficientnet_b0"),
        ("efficientnet-b7", "tf_efficientnet_b7"),
        ("MobileNetV2", "mobilenetv2_100"),
        ("MobileNetV3Large", "mobilenetv3_large_100"),
        ("MobileNetV3Small", "mobilenetv3_small_100"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
    ],
)
def test_common_spellings_of_names_are_resolved(written: str, name: str) -> None:
    assert resolve_name(written) == name


def test_the_name_of_an_entry_resolves_to_it() -> None:
    assert [resolve_name(entry.name) for entry in entries()] == [entry.name for entry in entries()]


def test_every_alias_is_in_the_catalogue_and_has_weights() -> None:
    assert all(look_up(alias).source for alias in ALIASES)


def test_a_similar_name_is_suggested() -> None:
    assert "mobilenetv2_100" in suggest("mobilnetv2_100", [entry.name for entry in entries()])
    assert suggest("zzz", ["resnet50"]) == "`thaw models` lists all networks"


def test_looking_up_an_unknown_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(BackboneError, match=r"resnet5.*did you mean resnet50"):
        look_up("resnet5")


def test_the_filter_requires_every_word_and_ignores_case() -> None:
    assert find("") == list(entries())
    assert {entry.family for entry in find("TENSORFLOW efficientnet")} == {"EfficientNet (TensorFlow)"}
    assert [entry.name for entry in find("resnet 101")] == ["resnet101"]
    assert find("resnet nothing") == []


def test_names_are_unique() -> None:
    assert len({entry.name for entry in entries()}) == len(entries())


@pytest.mark.parametrize(
    "entry",
    # Deep networks take up to two seconds each, and the facts about them change only with the catalogue.
    [pytest.param(entry, marks=[pytest.mark.slow, pytest.mark.ci] if entry.gmacs > 0.5 else []) for entry in entries()],
    ids=lambda entry: entry.name,
)
def test_parameters_and_gmacs_are_those_of_the_network(entry: Entry) -> None:
    with torch.device("meta"):
        network = timm.create_model(entry.architecture, num_classes=0).eval()
        images = torch.zeros(1, 3, entry.input_size, entry.input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    assert round(entry.parameters_m * 1e6) == sum(parameter.numel() for parameter in network.parameters())
    assert entry.gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=0.03)


@pytest.mark.parametrize("entry", [entry for entry in entries() if entry.source != "bundled"], ids=lambda it: it.name)
def test_size_and_source_are_those_of_timm(entry: Entry) -> None:
    configuration = timm.models.get_pretrained_cfg(entry.name)
    assert entry.input_size == configuration.input_size[-1]
    assert entry.source == (configuration.hf_hub_id or configuration.url or "")


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_accuracy_is_given_where_weights_are_published(entry: Entry) -> None:
    assert (entry.top1 is None) == (entry.source in ("", "bundled"))
    assert entry.top1 is None or 60 < entry.top1 < 90
