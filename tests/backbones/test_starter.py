"""The bundled starter weights."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.backbones import starter
from thaw.backbones.catalogue import look_up
from thaw.backbones.download import is_cached
from thaw.backbones.timm_backbone import build, rebuild
from thaw.errors import WeightsError
from thaw.recipe import PreprocessingSettings

OFFLINE = """
import socket
def refuse(*_):
    raise AssertionError("a socket was opened")
socket.socket.connect = refuse
from thaw.backbones.timm_backbone import build
print(build("starter").facts.origin)
"""


def test_it_is_at_most_8_mb_and_in_half_precision() -> None:
    assert starter.FILE.stat().st_size <= 8_000_000
    assert {value.dtype for value in load_file(starter.FILE).values()} == {torch.float16, torch.int64}


def test_the_catalogue_says_bundled_and_offline() -> None:
    entry = look_up("starter")
    assert (entry.source, entry.input_size) == ("bundled", build("starter").facts.pixels.size)
    assert is_cached("starter")


def test_it_needs_no_network_and_no_cache(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.strip() == "Thaw's starter, bundled"


def test_it_is_cut_and_rebuilt_like_any_backbone() -> None:
    backbone = build("starter")
    assert len(backbone.stage_names) >= 5
    assert backbone.facts.architecture == starter.ARCHITECTURE
    assert backbone.facts.mean == backbone.facts.std == (0.5, 0.5, 0.5)
    again = rebuild(backbone.facts, "avg")
    again.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(again(images), backbone(images))


def test_batchnorm_statistics_are_of_real_images_and_amplify_nothing() -> None:
    norms = [module for module in build("starter").network.modules() if isinstance(module, _BatchNorm)]
    assert norms
    for module in norms:
        assert module.running_mean is not None
        assert module.running_var is not None
        assert module.running_mean.abs().max() > 0
        assert module.running_var.min() > 1e-5


def test_the_recipe_can_change_its_input_size() -> None:
    assert build("starter", "published", PreprocessingSettings(image_size=96)).facts.pixels.size == 96


def test_random_weights_are_those_of_its_architecture() -> None:
    ours, theirs = build("starter", "random", seed=3).state_dict(), build(starter.ARCHITECTURE, "random", seed=3)
    assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())


def test_a_damaged_file_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(starter.FILE.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "starter.safetensors").write_bytes(content)
    monkeypatch.setattr(starter, "FILE", tmp_path / "starter.safetensors")
    with pytest.raises(WeightsError, match=r"starter\.safetensors: the weights bundled with Thaw are damaged; reinst"):
        build("starter")
    (tmp_path / "starter.safetensors").unlink()
    with pytest.raises(WeightsError, match="are missing; reinstall Thaw"):
        build("starter")


def test_the_model_card_is_bundled() -> None:
    card = files("thaw.backbones.starter").joinpath("MODEL_CARD.md").read_text(encoding="utf-8")
    assert starter.SHA256 in card
