"""Feature shift against BatchNorm statistics: on activations of known distance, and on real weights and images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.inspection import similarity
from thaw.inspection.similarity import Similarity, measure_similarity, remembered_similarity, verdict_of
from thaw.recipe import PreprocessingSettings

SMALL = PreprocessingSettings(image_size=64)


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(8, axis=1).repeat(8, axis=2))


def set_statistics(backbone: Backbone, images: torch.Tensor) -> None:
    """Set the statistics of every BatchNorm to those of these images."""
    for module in backbone.network.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    backbone.thaw(backbone.cut("pixels"), "train")
    backbone.train()
    with torch.no_grad():
        backbone((images.permute(0, 3, 1, 2) / 255 - torch.tensor(backbone.facts.mean)[:, None, None]) / 0.225)
    backbone.eval()
    backbone.thaw(backbone.cut("head"), "frozen")


@pytest.fixture
def pretrained() -> Backbone:
    backbone = build("resnet18", "random", SMALL)
    set_statistics(backbone, random_images(64))
    return backbone


def test_shift_is_smaller_for_images_from_the_pre_training_distribution(pretrained: Backbone) -> None:
    known = measure_similarity(pretrained, random_images(48, seed=1)).shift
    darker = measure_similarity(pretrained, random_images(48, seed=1) // 4).shift
    noise = measure_similarity(pretrained, torch.randint(0, 256, (48, 64, 64, 3), dtype=torch.uint8)).shift
    assert known is not None
    assert darker is not None
    assert noise is not None
    assert known < 0.2 < min(darker, noise)


def test_every_stage_has_a_shift_from_the_pixels_up(pretrained: Backbone) -> None:
    stages = [stage.stage for stage in measure_similarity(pretrained, random_images(8)).stages]
    assert stages == [name for name in pretrained.stage_names if name in stages]
    assert {"layer1", "layer4"} <= set(stages)


def test_networks_without_trained_statistics_are_unknown() -> None:
    for name in ("resnet18", "convnext_tiny"):
        found = measure_similarity(build(name, "random", SMALL), random_images(4))
        assert (found.shift, found.verdict) == (None, "unknown")


def test_measuring_does_not_change_the_network(pretrained: Backbone) -> None:
    before = {name: value.clone() for name, value in pretrained.state_dict().items()}
    measure_similarity(pretrained, random_images(8))
    assert all(torch.equal(value, before[name]) for name, value in pretrained.state_dict().items())


@pytest.mark.slow
@pytest.mark.ci
def test_shift_ranks_known_data_sets_as_expected(shared_data: Path, shared_weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    from safetensors.torch import load_file

    tensors = load_file(shared_weights / "mobilenetv2_100.imagenet.safetensors")
    save_file(tensors, file, {"pad_type": "same", "mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"})
    backbone = build("mobilenetv2_100", str(file))

    def shift(pattern: str) -> float:
        files = sorted(shared_data.glob(pattern))
        images = [Image.open(file).convert("RGB").resize((224, 224)) for file in files[:: len(files) // 48][:48]]
        found = measure_similarity(backbone, torch.from_numpy(np.stack([np.asarray(image) for image in images])))
        assert found.shift is not None
        return found.shift

    noise = measure_similarity(backbone, torch.randint(0, 256, (32, 224, 224, 3), dtype=torch.uint8)).shift
    assert noise is not None
    insects, waste, steel, cells = map(shift, ("ants_bees/*/*/*", "trashnet/*/*", "xsdd/*/*", "elpv/images/*"))
    assert insects < waste < min(steel, cells)
    assert max(steel, cells) < noise
    assert verdict_of(insects) == "similar"
    assert verdict_of(cells) == verdict_of(steel) == "very different"


def test_the_shift_is_measured_once_for_the_same_weights_and_images(
    pretrained: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(backbone: Backbone, pixels: torch.Tensor) -> Similarity:
        measured.append(len(pixels))
        return measure_similarity(backbone, pixels)

    monkeypatch.setattr(similarity, "measure_similarity", measure)
    first = remembered_similarity(pretrained, random_images(8), tmp_path)
    assert first == measure_similarity(pretrained, random_images(8))
    assert remembered_similarity(pretrained, random_images(8), tmp_path) == first and measured == [8]
    assert remembered_similarity(pretrained, random_images(8) // 2, tmp_path) != first and measured == [8, 8]
    (tmp_path / "similarity.json").write_text("{}", encoding="utf-8")
    assert remembered_similarity(pretrained, random_images(8), tmp_path) == first and measured == [8, 8, 8]


def test_a_network_that_cannot_tell_is_remembered_too(tmp_path: Path) -> None:
    network = build("test_resnet", "random", SMALL)
    found = [remembered_similarity(network, random_images(4), tmp_path) for _ in range(2)]
    assert found[0] == found[1] and found[0].verdict == "unknown"
