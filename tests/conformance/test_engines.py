"""Every engine agrees with fp32 PyTorch, for every family of networks and every kind of cut."""

from __future__ import annotations

import pytest
import torch

from thaw.backbones.timm_backbone import build
from thaw.features.engines import make_runner
from thaw.features.probe import distance_at_cut
from thaw.recipe import Engine, PreprocessingSettings

CPU = torch.device("cpu")
QUICK = ["resnet50", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100"]
SLOW = [
    "inception_v3",
    "resnet101",
    "legacy_xception",
    "xception41",
    *(f"efficientnet_b{size}" for size in range(1, 8)),
    "tf_efficientnet_b0",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "convnext_tiny",
    "densenet121",
    "regnety_002",
]
SIZES = {"inception_v3": 80, "legacy_xception": 80, "xception41": 80}


@pytest.mark.parametrize("engine", ["openvino-fp32"])
@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.ci]) for name in SLOW)]
)
def test_an_engine_agrees_with_pytorch_at_two_cuts_and_the_head(name: str, engine: Engine) -> None:
    size = SIZES.get(name, 64)
    backbone = build(name, "random", PreprocessingSettings(image_size=size))
    pixels = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    positions = [backbone.cut("stages:3").position, backbone.cut("layers:7").position, len(backbone.blocks)]
    wanted = sorted(set(positions))
    backbone.use_features("all")
    exact = make_runner("pytorch-fp32", backbone, CPU, wanted).run(pixels)
    found = make_runner(engine, backbone, CPU, wanted).run(pixels)
    for position, features, reference in zip(wanted, found, exact, strict=True):
        assert features.values.shape == reference.values.shape
        assert features.stages.shape == reference.stages.shape == (5, backbone.stage_width(position))
        assert distance_at_cut(features, reference) < 1e-4, position
