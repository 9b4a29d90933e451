"""Any library that can describe a network as a chain of blocks takes part in everything, without a change elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thaw
from thaw import backbones
from thaw.backbones.contract import Backbone
from thaw.backbones.cuts import Block
from thaw.backbones.facts import Facts, Pooling
from thaw.data.geometry import PixelSpec
from thaw.errors import BackboneError
from thaw.progress import NullReporter
from thaw.recipe import PreprocessingSettings, Recipe

FACTS = Facts(
    architecture="two-convolutions",
    pixels=PixelSpec(size=64, crop_pct=1.0, crop_mode="center", interpolation="bilinear", fill=(0, 0, 0)),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    width=16,
    classifier_name="top",
    license="none",
    origin="random",
    preprocessing_origin="its own",
    library="small",
)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU())


class SmallLibrary:
    """A library with a single network."""

    @staticmethod
    def build(
        name: str, weights: str, preprocessing: PreprocessingSettings | None, pooling: Pooling, seed: int
    ) -> Backbone:
        assert (name, weights) == ("two-convolutions", "random")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = SmallLibrary._network()
        size = preprocessing.image_size if preprocessing and preprocessing.image_size else FACTS.pixels.size
        return SmallLibrary._backbone(network, replace(FACTS, pixels=replace(FACTS.pixels, size=size)), pooling)

    @staticmethod
    def rebuild(facts: Facts, pooling: Pooling) -> Backbone:
        return SmallLibrary._backbone(SmallLibrary._network(), facts, pooling)

    @staticmethod
    def _network() -> nn.Sequential:
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(convolution(3, 8), convolution(8, 16), pool)

    @staticmethod
    def _backbone(network: nn.Module, facts: Facts, pooling: Pooling) -> Backbone:
        blocks = Block("below", ("0",)), Block("above", ("1",)), Block("pool", ("2",))
        return Backbone(network, blocks, facts, pooling)


@pytest.fixture
def only_the_small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(name: str) -> type[SmallLibrary]:
        return SmallLibrary

    monkeypatch.setattr(backbones, "_library", library)


@pytest.mark.usefixtures("only_the_small_library")
def test_a_network_of_another_library_is_inspected_fine_tuned_explained_and_shipped(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = quick.model_copy(update={"backbone": "two-convolutions"})
    assert "two-convolutions" in thaw.inspect(images, recipe, tmp_path, reporter=NullReporter()).backbone
    classifier = thaw.finetune(images, recipe, tmp_path, reporter=NullReporter())
    assert classifier.backbone.facts.library == "small"
    (file, *_) = (images / "scratch").iterdir()
    (shipped,) = thaw.predict(tmp_path / "train-1" / "model", [file])
    (trained,) = thaw.predict(classifier, [file])
    assert shipped.probabilities == pytest.approx(trained.probabilities, abs=1e-6)
    thaw.explain(tmp_path / "train-1", [file], tmp_path / "why")


def test_a_bundle_of_an_unknown_library_is_refused_with_advice() -> None:
    with pytest.raises(BackboneError, match="library 'small' is not supported by this version of Thaw; update Thaw"):
        backbones.rebuild(FACTS, "avg")


@pytest.mark.usefixtures("only_the_small_library")
@pytest.mark.parametrize(
    ("own", "setting"),
    [({"size": 28}, "image_size 28"), ({"size": 1536}, "image_size 1536"), ({"crop_pct": 1.15}, "crop_pct 1.15")],
)
def test_a_preprocessing_that_no_recipe_can_have_is_refused(
    own: dict[str, Any], setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "FACTS", replace(FACTS, pixels=replace(FACTS.pixels, **own)))
    name = setting.partition(" ")[0]
    with pytest.raises(
        BackboneError,
        match=rf"^backbone 'two-convolutions': comes with the {setting}, which Thaw .* another preprocessing\.{name}$",
    ):
        backbones.build(Recipe(backbone="two-convolutions", weights="random"))


def test_a_size_that_a_network_does_not_take_is_refused() -> None:
    def sized(size: int) -> Recipe:
        return Recipe(
            backbone="hrnet_w18_small", weights="random", preprocessing=PreprocessingSettings(image_size=size)
        )

    assert backbones.build(sized(64)).facts.pixels.size == 64
    with pytest.raises(BackboneError, match=r"'hrnet_w18_small': does not take images of 100 px .*another image_size"):
        backbones.build(sized(100))
