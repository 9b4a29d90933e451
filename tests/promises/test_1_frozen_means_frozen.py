from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from thaw.backbones import build
from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.data.dataset import Dataset
from thaw.pipeline import finetune, load
from thaw.progress import NullReporter
from thaw.recipe import DecodeSettings, Phase, PreprocessingSettings, Recipe
from thaw.run_folder import RunFolder


def untrained(recipe: Recipe) -> Classifier:
    backbone = build(recipe)
    return Classifier(backbone, Head(backbone.facts.width, 3, (), 0.2, seed=0), "abc", "multiclass", DecodeSettings())


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("inputs", ["cached", "fresh"])
@pytest.mark.parametrize("cut", ["head", "stages:1", "stages:3", "layers:20"])
def test_training_leaves_every_tensor_below_the_cut_bit_identical(
    cut: str, inputs: Literal["cached", "fresh"], images: Path, quick: Recipe, tmp_path: Path
) -> None:
    phase = Phase(name="only", cut=cut, epochs=1, lr=0.05, batch_size=16, inputs=inputs, batchnorm="frozen")
    recipe = quick.model_copy(update={"phases": (phase,)})
    before = untrained(recipe).backbone
    trainable = {f"network.{name}" for name in before.cut(cut).trainable}
    classifier = finetune(Dataset.open(images), recipe, tmp_path, reporter=NullReporter())
    moved = changed(before.state_dict(), classifier.backbone.state_dict())
    assert moved <= trainable
    assert bool(moved) == (cut != "head")


def test_batchnorm_above_the_cut_keeps_its_statistics_unless_the_recipe_trains_them(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    def moved_statistics(batchnorm: Literal["frozen", "train"]) -> set[str]:
        phase = Phase(name="only", cut="pixels", epochs=1, lr=0.01, batch_size=16, batchnorm=batchnorm)
        recipe = quick.model_copy(update={"phases": (phase,)})
        classifier = finetune(Dataset.open(images), recipe, tmp_path, reporter=NullReporter())
        moved = changed(untrained(recipe).backbone.state_dict(), classifier.backbone.state_dict())
        return {name for name in moved if "running" in name}

    assert not moved_statistics("frozen")
    assert moved_statistics("train")


@pytest.mark.parametrize("cut", ["head", "stages:2", "layers:9"])
def test_the_frozen_part_gives_the_same_features_after_any_number_of_calls_of_train(cut: str, quick: Recipe) -> None:
    backbone = untrained(quick).backbone
    lowest = backbone.cut(cut)
    backbone.thaw(lowest, "train")
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    reference = backbone.eval().run(pixels, 0, lowest.position)
    for _ in range(3):
        backbone.train()
        assert torch.equal(backbone.run(pixels, 0, lowest.position), reference)
    assert {name for name, parameter in backbone.network.named_parameters() if parameter.requires_grad} == set(
        lowest.trainable
    )


def test_a_bundle_after_phase_one_has_the_pretrained_network_unchanged(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = quick.model_copy(
        update={"phases": quick.phases[:1], "preprocessing": PreprocessingSettings(image_size=64)}
    )
    finetune(Dataset.open(images), recipe, tmp_path, reporter=NullReporter())
    bundle = load(RunFolder(tmp_path / "train-1").path)
    assert not changed(untrained(recipe).backbone.state_dict(), bundle.backbone.state_dict())
